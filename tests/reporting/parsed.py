"""A page as a browser's parser would see its elements."""

from __future__ import annotations

import io
from base64 import b64decode
from html.parser import HTMLParser

import pandas as pd

VOID = {"meta", "link", "br", "img", "input", "hr"}


class Parsed(HTMLParser):
    """The elements of a page; a wrong nesting is an error.

    Attributes:
        elements: each with its name and attributes.
        texts: all texts outside of styles and scripts.
    """

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attributes}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attributes}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, text: str) -> None:
        if self._open and self._open[-1] not in ("style", "script"):
            self.texts.append(text)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def ids(self) -> list[str]:
        return [attributes["id"] for _, attributes in self.elements if "id" in attributes]

    @property
    def figures(self) -> set[str]:
        return {each["id"].removeprefix("figure-") for each in self.all("figure")}

    @property
    def data(self) -> dict[str, pd.DataFrame]:
        """The CSV files in the page, by their names."""
        links = [each for each in self.all("a") if "download" in each]
        prefix = "data:text/csv;base64,"
        assert all(link["href"].startswith(prefix) for link in links)
        return {
            link["download"].removesuffix(".csv"): pd.read_csv(io.BytesIO(b64decode(link["href"].removeprefix(prefix))))
            for link in links
        }
