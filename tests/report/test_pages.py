from __future__ import annotations

import base64
import hashlib
import re
from html import unescape

import pytest
from jinja2 import UndefinedError
from matplotlib.figure import Figure

from emolight.report.pages import Cell, Sheet, between, environment, percent, picture

PAGE = """{% extends "page.html.j2" %}{% from "parts.html.j2" import plot, sheet, strip %}
{% block title %}{{ title }}{% endblock %}
{% block header %}{{ title }}{% endblock %}
{% block main %}{{ sheet(table) }}{{ plot(figure) }}{% endblock %}
{% block footer %}{% endblock %}"""


def render(title: str = "a title", text: str = "a cell") -> str:
    figure = Figure(figsize=(5, 3))
    figure.subplots().plot([1, 2])
    rows = [[Cell(text, text), Cell("50.0 %", 0.5, (0.5, 0.4, 0.7))], [Cell("b", "b"), Cell("1 %", 0.01)]]
    table = Sheet("A table", ["name", "UAR"], rows, strong=1)
    template = environment("emolight.report").from_string(PAGE)
    return template.render(title=title, table=table, figure=picture(figure, 'a "line"'))


def test_page_needs_no_network_and_runs_its_own_script_only() -> None:
    html = render()
    scripts = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    assert len(scripts) == 1
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    policy = re.findall(r'Content-Security-Policy" content="(.*?)"', unescape(html))
    assert policy == [
        f"default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    ]
    assert "url(" not in html
    assert "://" not in html
    assert "prefers-color-scheme: dark" in html


def test_what_a_page_is_given_is_escaped() -> None:
    hostile = "<script>alert('1')</script>"
    html = render(hostile, '"><img src=x onerror=alert(1)>')
    assert html.count("<script>") == 1
    assert "<img src=x" not in html
    assert 'data-key="&#34;&gt;' in html
    assert 'alt="a &#34;line&#34;"' in html


def test_strip_of_a_value_with_its_interval() -> None:
    html = render()
    assert '<i class="band" style="left:40.00%;width:30.00%"></i><i class="dot" style="left:50.00%"></i>' in html
    assert '<tr class="strong">' in html


def test_a_picture_has_the_same_bytes_every_time_and_its_width() -> None:
    assert render() == render()
    assert 'width="480" style="min-width:374px"' in render()


def test_a_name_that_is_missing_is_an_error() -> None:
    with pytest.raises(UndefinedError):
        environment("emolight.report").from_string("{{ nothing }}").render()


def test_shares() -> None:
    assert percent(0.6118) == "61.2\u00a0%"
    assert between(0.58, 0.641) == "58.0\u00a0–\u00a064.1\u00a0%"
