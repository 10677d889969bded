// Where photos lie in their panes.  A view is {zoom, centre}: zoom 1 shows the whole photo, centre is
// the [x, y] px of the photo in the middle of the pane.  Only numbers here, no elements.

export const MAX_ZOOM = 24;

/** The scale, screen px per photo px, at which a whole photo fits its pane. */
export function fitScale(size, pane) {
  return Math.min(pane.width / size[0], pane.height / size[1]);
}

/** The view with zoom and centre in their limits: no empty space where there could be photo. */
export function clampView(view, size, pane) {
  const zoom = Math.min(Math.max(view.zoom, 1), MAX_ZOOM);
  const scale = zoom * fitScale(size, pane);
  const centre = view.centre.map((value, axis) => {
    const half = (axis === 0 ? pane.width : pane.height) / scale / 2;
    return 2 * half >= size[axis] ? size[axis] / 2 : Math.min(Math.max(value, half), size[axis] - half);
  });
  return { zoom, centre };
}

/** Scale and offset of a view: screen = offset + scale * photo, from the pane's own corner. */
export function placement(view, size, pane) {
  const scale = view.zoom * fitScale(size, pane);
  return {
    scale,
    x: pane.width / 2 - scale * view.centre[0],
    y: pane.height / 2 - scale * view.centre[1],
  };
}

/** The view zoomed by `factor` with the photo's point under `at` (screen px in the pane) held there. */
export function zoomAt(view, size, pane, factor, at) {
  const before = placement(view, size, pane);
  const zoom = Math.min(Math.max(view.zoom * factor, 1), MAX_ZOOM);
  const scale = zoom * fitScale(size, pane);
  const held = [(at[0] - before.x) / before.scale, (at[1] - before.y) / before.scale];
  const centre = [held[0] + (pane.width / 2 - at[0]) / scale, held[1] + (pane.height / 2 - at[1]) / scale];
  return clampView({ zoom, centre }, size, pane);
}

/** The view moved by screen px. */
export function panBy(view, size, pane, dx, dy) {
  const { scale } = placement(view, size, pane);
  const centre = [view.centre[0] - dx / scale, view.centre[1] - dy / scale];
  return clampView({ zoom: view.zoom, centre }, size, pane);
}

/**
 * The view of the other photo that shows the same detail at the same size on the screen.
 *
 * `transform` is the 2x3 affine from this photo to the other one, or null: then the same part of the
 * other photo is shown.  Whole photos stay whole; from zoom 1 to 2 one passes into the other.
 */
export function follow(view, size, pane, otherSize, otherPane, transform) {
  const share = view.centre.map((value, axis) => value / size[axis]);
  const plain = share.map((value, axis) => value * otherSize[axis]);
  if (transform === null) return clampView({ zoom: view.zoom, centre: plain }, otherSize, otherPane);
  const [[a, b, tx], [c, d, ty]] = transform;
  const [x, y] = view.centre;
  const mapped = [a * x + b * y + tx, c * x + d * y + ty];
  const growth = Math.sqrt(Math.abs(a * d - b * c)) || 1; // px of the other photo per px of this one
  const ratio = fitScale(size, pane) / (growth * fitScale(otherSize, otherPane));
  const weight = Math.min(Math.max(Math.log2(view.zoom), 0), 1);
  const centre = mapped.map((value, axis) => weight * value + (1 - weight) * plain[axis]);
  return clampView({ zoom: view.zoom * ratio ** weight, centre }, otherSize, otherPane);
}

/** The inverse of a 2x3 affine, null where there is none. */
export function inverse(transform) {
  if (transform === null) return null;
  const [[a, b, tx], [c, d, ty]] = transform;
  const determinant = a * d - b * c;
  if (Math.abs(determinant) < 1e-12) return null;
  return [
    [d / determinant, -b / determinant, (b * ty - d * tx) / determinant],
    [-c / determinant, a / determinant, (c * tx - a * ty) / determinant],
  ];
}
