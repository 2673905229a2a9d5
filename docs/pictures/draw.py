"""The pictures of our own pages in the README: `make pictures` draws them again, with pdftoppm of poppler-utils."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from fangxin.reports.paper.pages import certificate_pdf
from fangxin.reports.periodic_pages import report_pdf

HERE = Path(__file__).parent
WIDTH = "520"


def draw(name: str, pdf: bytes) -> None:
    """Draw the first page as a PNG."""
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.pdf"
        page.write_bytes(pdf)
        words = ["pdftoppm", "-png", "-singlefile", "-scale-to-x", WIDTH, "-scale-to-y", "-1", page, HERE / name]
        subprocess.run(words, check=True, stderr=subprocess.DEVNULL)


def main() -> None:
    """Draw a made-up certificate in both languages, and a made-up quarter's report."""
    sys.path[:0] = [str(HERE.parent.parent / "bench"), str(HERE.parent.parent / "tests")]
    from certificates import example
    from evidence.made_up_year import made_up_report

    draw("certificate-zh", certificate_pdf(example(), languages=["zh"]))
    draw("certificate-en", certificate_pdf(example(), languages=["en"]))
    draw("report-en", report_pdf(made_up_report("2026-Q2"), languages=["en"]))


if __name__ == "__main__":
    main()
