"""Errors that a user of the command line or the service can fix."""


class OpenDelgError(Exception):
    """Base of every error with a remedy: shown as one line, without a traceback."""


class ImageError(OpenDelgError):
    """An image file cannot be read: damaged, too large, or not an image."""


class ImageTooLargeError(ImageError):
    """An image file has more bytes or pixels than the limits allow."""


class WeightsError(OpenDelgError):
    """Weights do not fit: unknown name, other shapes, or another checksum."""


class FormatError(OpenDelgError):
    """A file or collection has the wrong format, version or recipe."""


class UnavailableError(OpenDelgError):
    """A service that a collection is kept by does not answer: it may later."""
