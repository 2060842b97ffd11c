"""The command that lets others ask a model: a page in the browser, or endpoints for programs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from metanlp.cli.options import Columns, Taught
from metanlp.core.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Serve(Taught, Columns):
    """A page to try a learner on: label a few texts, adapt, look at the answers and why, download the adapted model. Of
    an adapted model, a page to ask it. With --guide, a page to tick products on and see their ranking change. With
    --api, endpoints for programs in place of the page: POST /adapt, POST /predict, GET /healthz, and /docs on them."""

    # Folder of a learner, a run or an adapted model, or owner/name on the Hub; by default the learner that comes with
    # the package.
    source: Annotated[Path, tyro.conf.arg(name="from")] = Path("default")
    api: bool = False  # endpoints for programs
    guide: Path | None = None  # products: CSV or JSONL with a text, or lines
    clean: bool = False  # of these, put HTML, prices and spaces in order; leave out repeats and products without text
    host: str = "127.0.0.1"  # this machine alone; 0.0.0.0 is whoever can reach it, without a password
    port: int = 7860  # of the page or the endpoints

    def run(self) -> None:
        from metanlp.serve.address import check_free
        from metanlp.tasks.reading.columns import parse_columns
        from metanlp.tasks.reading.products import read_products

        self._check()
        columns = parse_columns(self.columns)
        check_free(self.host, self.port)
        products = read_products(self.guide, columns, clean=self.clean).rows if self.guide else ()
        from metanlp.learner.learner import Learner, load_model

        model = (Learner.load if self.guide else load_model)(self.source, base=self.base)
        if self.api:
            from metanlp.serve import api  # a second to import; the pages several

            api.serve(api.app_of(model, columns), self.host, self.port)
            return
        from metanlp.serve import guide_page, page

        if isinstance(model, Learner) and self.guide:
            made = guide_page.GuidePage(model, products)
        else:  # by its name, as where it lies is nobody's business
            made = page.Page(model, self.source.name if self.source.is_dir() else str(self.source), columns)
        page.serve(made.blocks, self.host, self.port)

    def _check(self) -> None:
        """Raises InputError for what can be said before anything is loaded."""
        from importlib.util import find_spec

        library, what = ("fastapi_offline", "the endpoints are") if self.api else ("gradio", "the page is")
        if not find_spec(library):
            raise InputError(f"{what} made by {library}, which is not installed; pip install 'metanlp[serve]'")
        if self.api and self.guide:
            raise InputError("--api and --guide are two servers; give one of them")
