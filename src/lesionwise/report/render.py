"""Templates to files: everything a page shows goes through here, and everything is escaped."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from decimal import ROUND_HALF_UP, Decimal
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import jinja2
from markupsafe import Markup

from lesionwise import __version__
from lesionwise.io.files import write_text

NOT_A_DEVICE = "Not a medical device. For research use only."


def render(template: str, **content: Any) -> str:
    """A page from a template in ``assets``; every value that is not ``Markup`` is escaped.

    Templates that extend ``base.html`` fill the blocks ``lead`` (beside the title), ``main`` and
    ``scripts``, and are given ``title``.
    """
    return _environment().get_template(template).render(**content)


def write_page(path: str | Path, template: str, **content: Any) -> Path:
    """Render a page and write it atomically; returns where it lies."""
    write_text(path, render(template, **content))
    return Path(path)


def data_uri(content: bytes, kind: str) -> str:
    """Bytes as an address that a page can hold, such as ``data:image/png;base64,…``."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def asset(name: str) -> str:
    """The text of a file in ``assets``."""
    return resources.files("lesionwise.report").joinpath("assets", name).read_text("utf-8")


def asset_bytes(name: str) -> bytes:
    """The content of a file in ``assets``."""
    return resources.files("lesionwise.report").joinpath("assets", name).read_bytes()


def safe_link(target: str) -> str:
    """A relative path as an address; anything with a scheme of its own is refused.

    Raises:
        ValueError: If the target is not a relative path.
    """
    if urlsplit(target).scheme or target.startswith(("/", "\\")):
        raise ValueError(f"links of a page are relative paths, got {target!r}")
    return quote(target)


def number(value: Any, digits: int = 0) -> str:
    """A number for reading: fixed digits, spaced thousands, a dash for what is missing.

    Halves are rounded away from 0, as the script of the page does.
    """
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return "\N{EN DASH}"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        try:
            value = float(value)
        except (TypeError, ValueError):
            return str(value)
    if math.isnan(value):
        return "\N{EN DASH}"
    if math.isfinite(value):
        value = Decimal(str(value)).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP)
    text = f"{value:,.{digits}f}".replace(",", "\N{NARROW NO-BREAK SPACE}")
    return text.replace("-", "\N{MINUS SIGN}")


def shown(value: Any) -> str:
    """A value of a provenance entry or of a free table as text."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "\N{EN DASH}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {shown(entry)}" for key, entry in value.items())
    if isinstance(value, (list, tuple, set, frozenset)):
        return ", ".join(shown(entry) for entry in value)
    if isinstance(value, float):
        return number(value, 0) if value == round(value) and abs(value) < 1e9 else f"{value:.4g}"
    return str(value)


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(asset),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    environment.filters["shown"] = shown
    environment.filters["webp"] = lambda content: data_uri(content, "image/webp")
    environment.globals["not_a_device"] = NOT_A_DEVICE
    environment.globals["version"] = __version__
    environment.globals["style"] = Markup(asset("style.css"))
    environment.globals["table_script"] = Markup(asset("tables.js"))
    environment.globals["asset"] = lambda name: Markup(asset(name))
    return environment
