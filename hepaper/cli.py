"""The command line: thin commands over the package. A user's mistake ends in one line and exit status 1."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from hepaper._version import __version__
from hepaper.errors import HepaperError

app = typer.Typer(
    help="A reproducible study of hematoma expansion prediction from one non-contrast head CT. Research software.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Run the command line, turning a :class:`HepaperError` into its one line."""
    try:
        app()
    except HepaperError as error:
        print(f"hepaper: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("hepaper: interrupted; what was finished is kept, run the same command to go on", file=sys.stderr)
        sys.exit(130)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"hepaper {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    pass


@app.command()
def run(
    params: Annotated[Path, typer.Argument(help="A params file, such as params/demo.yml.")],
    set_: Annotated[list[str] | None, typer.Option("--set", help="Override one knob: segmentation.epochs=3")] = None,
    cores: Annotated[int, typer.Option(help="Cores to use; 0: all.")] = 0,
    until: Annotated[str | None, typer.Option(help="Stop after this stage.")] = None,
) -> None:
    """Run a study: every stage that is not done yet, then its book. Interrupt and repeat at will."""
    from hepaper.params import load_params
    from hepaper.workflow import run_study

    overrides: dict[str, Any] = {}
    for item in set_ or []:
        key, sign, value = item.partition("=")
        if not sign:
            raise HepaperError(f"--set {item}: write KEY=VALUE, such as segmentation.epochs=3")
        try:
            overrides[key.strip()] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise HepaperError(f"--set {item}: {' '.join(str(error).split())}; quote the value") from None
    index = run_study(load_params(params, overrides), cores=cores, until=until)
    if index:
        print(f"The book: {index}")


@app.command("check-cohort")
def check_cohort(table: Annotated[Path, typer.Argument(help="cohort.csv, one row a patient.")]) -> None:
    """Check a cohort table and its files; list every problem at once, with its remedy."""
    from hepaper.cohort import check_cohort as check

    checked = check(table)
    print("\n".join(checked.report()))
    if not checked.ok:
        raise typer.Exit(1)


@app.command("new-study")
def new_study(
    name: Annotated[str | None, typer.Argument(help="The study's name: its folder, and that of its run.")] = None,
    table: Annotated[Path | None, typer.Option("--from", help="Your spreadsheet: CSV or Excel.")] = None,
    map_: Annotated[list[str] | None, typer.Option("--map", help="A column: sex=Gender, or a pattern.")] = None,
    value: Annotated[list[str] | None, typer.Option(help="What a code means: sex:M=male")] = None,
    out: Annotated[Path, typer.Option(help="Where studies lie.")] = Path("studies"),
    size: Annotated[str, typer.Option(help="tiny, laptop or gpu; auto: what this machine has.")] = "auto",
    sheet: Annotated[str | None, typer.Option(help="The sheet of an Excel workbook.")] = None,
    update: Annotated[bool, typer.Option("--update", help="Take a newer table into a study that is there.")] = False,
    template: Annotated[Path | None, typer.Option(help="Write an empty table to fill in, and stop.")] = None,
) -> None:
    """Make a study of your own patients: map columns, check every scan, drop names, write table and parameters."""
    from hepaper.new_study import new_study as make_study
    from hepaper.new_study import write_template

    if template is not None:
        print("\n".join(str(path) for path in write_template(template)))
        return
    if name is None or table is None:
        raise HepaperError("give a name and a spreadsheet: hepaper new-study NAME --from TABLE (or --template FILE)")
    made = make_study(name, table, map_ or [], value or [], out, size, sheet, update)
    print("\n".join(made.lines))
    if not made.ok:
        raise typer.Exit(1)


@app.command()
def hospital(
    folder: Annotated[Path, typer.Argument(help="Where the hospital's export goes.")],
    patients: Annotated[int, typer.Option(help="Eligible phantoms.")] = 29,
) -> None:
    """Write a made-up hospital's export, to rehearse with: DICOM folders, a spreadsheet, identifiers everywhere."""
    from hepaper.new_study.rehearsal import write_hospital

    planted = write_hospital(folder, patients)
    print(f"{folder / 'patients.csv'}, with {len(planted)} identifiers planted (identifiers.txt); none is a person's.")


@app.command()
def predict(
    scan: Annotated[Path, typer.Argument(help="A NIfTI file, or a folder with one DICOM series.")],
    run: Annotated[Path, typer.Option(help="The run folder whose models are used, such as runs/demo.")],
    out: Annotated[Path, typer.Option(help="Where mask, overlay and report go.")] = Path("prediction"),
) -> None:
    """Predict one scan: mask, volume, probability of expansion, overlay and a one-page report."""
    from hepaper.predict import predict_scan

    prediction = predict_scan(scan, run, out)
    print("\n".join(prediction.lines()))
    print(f"Report: {out / 'report.html'}")


@app.command()
def book(run: Annotated[Path, typer.Argument(help="A run folder, such as runs/demo.")]) -> None:
    """Render the book of a finished run and add it to the site (book.site)."""
    from hepaper.book import build_book
    from hepaper.site import publish

    print(f"The book: {build_book(run)}")
    published = publish(run)
    if published:
        print(f"In the site: {published}")


@app.command()
def compare(
    run_a: Annotated[Path, typer.Argument(help="A run folder with its book, such as runs/demo.")],
    run_b: Annotated[Path, typer.Argument(help="Another one, such as runs/as_released.")],
    out: Annotated[Path | None, typer.Option(help="Where the page goes instead of the site (book.site).")] = None,
) -> None:
    """Put the tables and figures of two runs side by side, with the differences, on one page."""
    from hepaper.compare import compare_runs

    print(f"The comparison: {compare_runs(run_a, run_b, out)}")


@app.command()
def env(
    run: Annotated[Path, typer.Argument(help="A run folder, such as runs/demo.")],
    benchmark: Annotated[bool, typer.Option(help="The benchmark's dataset instead of the full-scale one.")] = False,
) -> None:
    """Print the variables with which nnU-Net's own commands work on a run: eval "$(hepaper env runs/demo)"."""
    from hepaper.segmentation.environment import shell_environment
    from hepaper.study import Study

    study = Study.at(run)
    base = study.path("segmentation", "benchmark" if benchmark else "full_scale", "nnunet")
    print("\n".join(shell_environment(base)))


masks = typer.Typer(help="Masks that a network proposes and a person refines (ITK-SNAP).", no_args_is_help=True)
app.add_typer(masks, name="masks")


@masks.command()
def propose(
    run: Annotated[Path, typer.Argument(help="A run folder whose benchmark is finished.")],
    folder: Annotated[Path, typer.Argument(help="Where scans and proposed masks go.")],
    all_: Annotated[bool, typer.Option("--all", help="Also for scans that have a reference mask.")] = False,
) -> None:
    """Write training scans with proposed masks into a folder, to be refined by a person."""
    from hepaper.segmentation import refinement
    from hepaper.study import Study

    cases = refinement.propose(Study.at(run), folder, all_)
    print(f"{len(cases)} scan(s) in {folder}. Refine each <case>_mask.nii.gz over its <case>_ct.nii.gz (labels.txt holds "
          f"ITK-SNAP's label), delete what you did not look at, then: hepaper masks take {run} {folder}")  # fmt: skip


@masks.command()
def take(
    run: Annotated[Path, typer.Argument(help="The run folder that proposed them.")],
    folder: Annotated[Path, typer.Argument(help="The folder with refined masks.")],
) -> None:
    """Take refined masks back; the full-scale model is then trained on them when the study is run again."""
    from hepaper.segmentation import refinement
    from hepaper.study import Study

    taken = refinement.take(Study.at(run), folder)
    print(taken.to_string(index=False))
    print(f"{len(taken)} refined mask(s) taken; run the study again to train on them.")


reader_study = typer.Typer(help="Real or synthetic? A blinded reading by people.", no_args_is_help=True)
app.add_typer(reader_study, name="reader-study")


@reader_study.command()
def make(
    run: Annotated[Path, typer.Argument(help="A run folder with synthetic images, such as runs/demo.")],
    out: Annotated[Path, typer.Option(help="The folder that the readers get.")] = Path("reader-study"),
) -> None:
    """Write an offline web page of coded images for readers; the sealed key stays in the run folder."""
    from hepaper.reader_study.stage import make as make_kit
    from hepaper.study import Study

    key = make_kit(Study.at(run), out)
    print(f"{len(key.table)} images in {out / 'index.html'}. Give that folder to each reader, and a code to each. With "
          f"their files: hepaper reader-study collect {run} FILES")  # fmt: skip


@reader_study.command("collect")
def collect_ratings(
    run: Annotated[Path, typer.Argument(help="The run folder that made the kit.")],
    files: Annotated[list[Path], typer.Argument(help="The CSV files that the readers sent back.")],
) -> None:
    """Check and join the readers' files; the next run of the study analyses them instead of simulated ones."""
    from hepaper.reader_study.stage import take as take_ratings
    from hepaper.study import Study

    ratings = take_ratings(Study.at(run), files)
    print(f"{len(ratings)} ratings of {ratings['reader'].nunique()} reader(s); run the study again to analyse them.")


@app.command()
def doctor() -> None:
    """Check the installation and print the remedy for what is wrong."""
    from hepaper.doctor import examine

    findings = examine()
    for finding in findings:
        print(finding.line())
    if any(finding.level == "wrong" for finding in findings):
        raise typer.Exit(1)
