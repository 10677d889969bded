"""A first look: index photos, search them, and show the evidence on one page."""

from opendelg.demo.run import DemoQuery, DemoReport, choose_queries, search_and_show

__all__ = ["DemoQuery", "DemoReport", "choose_queries", "search_and_show"]
