"""``naswot calibrate``."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from naswot._json import for_json, write_json
from naswot.cli import _options as shared
from naswot.cli import _run as run
from naswot.cli._trained import Trained, read_trained, scores_in
from naswot.errors import InputError, NaswotError, StoreError

if TYPE_CHECKING:
    from naswot.calibrating import Calibration, Standing
    from naswot.statistics import Comparison, Estimate

DEFAULT_PROXIES = "naswot,swap,lnwot,jacov,snip,grad_norm,synflow,params,flops,trainable_layers"
FEW = 20


@dataclass(frozen=True)
class _Scored:
    """Scores by name, NaN where unknown, with the architectures that have none at all."""

    scores: Mapping[str, Sequence[float]]
    failures: Mapping[str, str]
    options: Mapping[str, object]
    folder: Path


@click.command()
@click.argument("table", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--space", type=shared.RegistryName("spaces"), help="The architectures are strings of this space.")
@click.option("--model", metavar="FILE.py:FUNCTION", help="FUNCTION(architecture string) gives the network.")
@click.option("--scores-in-table", is_flag=True, help="Every other numeric column is a score; nothing is built.")
@click.option("--arch-column", default="arch", show_default=True, help="Column with the architectures.")
@click.option(
    "--accuracy-column", default="accuracy", show_default=True, help="Column with what they reached, higher better."
)
@click.option(
    "--proxies",
    type=shared.RegistryName("proxies"),
    help=f"Comma-separated; zen(repeats=4) binds an option. By default {DEFAULT_PROXIES}, or all scores in the table.",
)
@click.option(
    "--baselines", default="params,flops,trainable_layers", show_default=True, help="Scores that measure size."
)
@click.option("--lower-is-better", default="", help="Scores in the table of which less is better.")
@click.option(
    "--useful",
    default=0.3,
    show_default=True,
    type=click.FloatRange(0, 1, True, True),
    help="Least tau worth having: a score whose whole interval lies below does not help.",
)
@shared.data_options
@shared.pass_options
@click.option("--build", multiple=True, metavar="KEY=VALUE", help="Option of the space, such as width=8.")
@click.option("--workers", type=click.IntRange(min=1), help="Processes; by default one for each core, on a GPU one.")
@click.option("--out", type=click.Path(file_okay=False), help="Run folder; by default one under runs/.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(table: Path, **given: Any) -> None:
    """Tell whether proxies help on the 20 to 200 trained architectures of TABLE, a CSV file.

    TABLE has a column that says the architecture and one with its accuracy; accuracy_0, accuracy_1, ... are single
    trainings. The answer is a verdict in words: use a proxy, a combination of them, or size alone; they do not help
    here; or too few architectures to tell. Each score is taken in its declared direction and never turned round.

    Scores of a space go to a run folder at once, and the same command goes on where it was stopped. table.csv tells of
    each score, scores.csv of each architecture; with --scores-in-table the latter can be judged again.

    \b
    Examples:
      naswot calibrate mine.csv --space nasbench201 --data cifar10 --data-root ~/data
      naswot calibrate mine.csv --model my_nets.py:build --proxies "naswot,zen(repeats=4),params,flops"
      naswot calibrate scores.csv --scores-in-table --lower-is-better ntk_condition
    """
    from naswot.calibrating import calibrate

    sources = [given["space"], given["model"], given["scores_in_table"]]
    if sum(map(bool, sources)) != 1:
        raise click.UsageError("choose one of --space, --model and --scores-in-table: where do the scores come from?")
    if (given["build"] or given["workers"]) and not given["space"]:
        raise click.UsageError("--build and --workers are for --space")
    trained = read_trained(table, arch=given["arch_column"], accuracy=given["accuracy_column"])
    score = _of_space if given["space"] else _of_models if given["model"] else _of_table
    scored = score(trained, table, given)
    kept = [i for i, arch in enumerate(trained.archs) if arch not in scored.failures]
    _say_what_failed(scored, len(kept))
    result = calibrate(
        list(scored.scores),
        [[column[i] for column in scored.scores.values()] for i in kept],
        [trained.accuracies[i] for i in kept],
        lower_is_better=_lower_is_better(list(scored.scores), given["lower_is_better"]),
        baselines=_words(given["baselines"]),
        trainings=[trained.trainings[i] for i in kept] if trained.trainings else None,
        useful=given["useful"],
        seed=given["seed"],
    )
    if result.n < FEW:
        click.echo(f"note: {result.n} architectures are few; 20 to 200 give intervals one can use", err=True)
    summary = _summary(result, scored, table)
    _write(result, trained, kept, scored, summary)
    if given["as_json"]:
        click.echo(json.dumps(summary, indent=2))
    else:
        _print(result, scored.folder)


# --------------------------------------------------------------------------------------------- where scores come from


def _of_space(trained: Trained, table: Path, given: dict[str, Any]) -> _Scored:
    from naswot.errors import ArchitectureError
    from naswot.run import screen
    from naswot.space import get_space
    from naswot.workers import worker_pool

    images = run.images_of({"data": given["data"], "size": given["size"]}, given["data_root"])
    asked = {**given, "proxies": given["proxies"] or DEFAULT_PROXIES}
    evaluator = run.evaluator_of(asked, get_space(given["space"]), images)
    genotypes: dict[tuple[int, ...], str] = {}
    for row, arch in enumerate(trained.archs, start=1):
        try:
            genotype = evaluator.space.parse(arch)
        except ArchitectureError as error:
            raise ArchitectureError(f"{table}, row {row}: {error}") from error
        if genotype in genotypes:
            raise InputError(f"{table}: {arch} and {genotypes[genotype]} are one architecture; expected each once")
        genotypes[genotype] = arch
    folder = Path(given["out"] or Path("runs") / run.folder_name(evaluator, prefix=f"calibrate-{table.stem}-"))
    workers = given["workers"] or run.default_workers(evaluator)
    with (
        run.store_of(evaluator, folder) as store,
        run.progress(given["as_json"]) as progress,
    ):
        try:
            with worker_pool(workers) as executor:
                advance = run.advancing(progress, "scoring", len(genotypes))
                rows = screen(evaluator, list(genotypes), executor=executor, store=store, on_result=advance)
        except KeyboardInterrupt:
            progress.stop()
            run.stopped(store, folder)
    found = {genotypes[row.genotype]: row.mean for row in rows}
    failures = {genotypes[row.genotype]: row.error for row in rows if row.error is not None}
    return _Scored(_columns(trained, found, evaluator.names), failures, evaluator.describe(), folder)


def _of_models(trained: Trained, table: Path, given: dict[str, Any]) -> _Scored:
    from naswot.cli._loading import batch_for
    from naswot.data import get_data
    from naswot.measuring import run_proxies
    from naswot.models import load_builder
    from naswot.proxy import get_proxy
    from naswot.scoring import pass_options
    from naswot.seeding import seeded

    folder = _new_folder(given["out"] or Path("runs") / f"calibrate-{table.stem}")
    words = shared.proxies_of(given["proxies"] or DEFAULT_PROXIES)
    chosen = [get_proxy(word) if isinstance(word, str) else word for word in words]
    build, device = load_builder(given["model"]), shared.checked_device(given["device"])
    images = get_data(given["data"], root=given["data_root"], size=given["size"])
    found: dict[str, Mapping[str, float]] = {}
    failures: dict[str, str] = {}
    with run.progress(given["as_json"]) as progress:
        advance = run.advancing(progress, "scoring", len(trained.archs))
        for arch in trained.archs:
            try:
                with seeded(given["seed"]):
                    model = build(arch).to(device)
                batch = batch_for(model, images, given["batch_size"], given["seed"])
                options = pass_options(model, fast=given["fast"], taps=given["taps"], mode=given["mode"])
                found[arch] = run_proxies(model, batch, chosen, seed=given["seed"], options=options).scores
            except NaswotError as error:
                failures[arch] = str(error)
            advance(None)
    told = {name: given[name] for name in ("model", "data", "batch_size", "seed", "taps", "mode", "fast")}
    return _Scored(_columns(trained, found, [proxy.name for proxy in chosen]), failures, told, folder)


def _of_table(trained: Trained, table: Path, given: dict[str, Any]) -> _Scored:
    asked = _words(given["proxies"] or "")
    sizes = [name for name in _words(given["baselines"]) if name in trained.columns]  # what everything is measured by
    scores, notes = scores_in(trained, list(dict.fromkeys([*asked, *sizes])) if asked else ())
    for note in notes:
        click.echo(f"note: {note}", err=True)
    return _Scored(scores, {}, {}, _new_folder(given["out"] or Path("runs") / f"calibrate-{table.stem}"))


def _columns(
    trained: Trained, found: Mapping[str, Mapping[str, float]], names: Sequence[str]
) -> dict[str, list[float]]:
    return {name: [found.get(arch, {}).get(name, math.nan) for arch in trained.archs] for name in names}


def _new_folder(path: str | Path) -> Path:
    """The folder, made if need be; one that holds something else than a calibration is refused."""
    folder = Path(path)
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "summary.json").exists():
        raise StoreError(f"{folder} holds files but no calibration; choose another --out")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"cannot make the folder {folder} ({error.strerror}); choose another --out") from error
    return folder


def _say_what_failed(scored: _Scored, n_kept: int) -> None:
    if scored.failures and n_kept < 2:
        arch, why = next(iter(scored.failures.items()))
        raise InputError(f"no architecture could be scored; {arch}: {why}")
    for arch, why in scored.failures.items():
        click.echo(f"note: {arch} is left out: {why}", err=True)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _lower_is_better(names: Sequence[str], text: str) -> list[str]:
    """Those told, and proxies of these names that declare it."""
    from naswot.proxy import get_proxy, list_proxies

    known = set(list_proxies())
    declared = [name for name in names if name in known and not get_proxy(name).higher_is_better]
    return [*declared, *(word for word in _words(text) if word not in declared)]


# --------------------------------------------------------------------------------------------------------- what is told


def _summary(result: Calibration, scored: _Scored, table: Path) -> dict[str, Any]:
    about = {"command": "calibrate", "folder": str(scored.folder), "table": str(table), "options": dict(scored.options)}
    plain: dict[str, Any] = for_json({**about, "failed": dict(scored.failures), **dataclasses.asdict(result)})
    return plain


def _standings(result: Calibration) -> list[Standing]:
    return [*result.proxies, *([result.combination.standing] if result.combination else [])]


def _write(
    result: Calibration, trained: Trained, kept: Sequence[int], scored: _Scored, summary: dict[str, Any]
) -> None:
    from naswot.plots import plot_taus

    folder = scored.folder
    with (folder / "scores.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        singles = [f"accuracy_{i}" for i in range(len(trained.trainings[0]) if trained.trainings else 0)]
        writer.writerow(["arch", "accuracy", *singles, *scored.scores])
        for i in kept:
            single = trained.trainings[i] if trained.trainings else ()
            cells = [*single, *(column[i] for column in scored.scores.values())]
            known = ["" if math.isnan(cell) else cell for cell in cells]
            writer.writerow([trained.archs[i], trained.accuracies[i], *known])
    with (folder / "table.csv").open("w", newline="", encoding="utf-8") as file:
        records = [_record(each, result.sizes) for each in _standings(result)]
        table = csv.DictWriter(file, list(records[0]))
        table.writeheader()
        table.writerows(records)
    write_json(folder / "summary.json", summary)
    title = f"{result.n} architectures: {result.verdict.value}" + (f" ({result.use})" if result.use else "")
    rows = [(each.name, each.tau) for each in _standings(result)]
    plot_taus(rows, folder / "taus.png", ceiling=result.ceiling, useful=result.useful, title=title)


def _record(each: Standing, sizes: Sequence[str]) -> dict[str, object]:
    """A row of table.csv; empty what is not defined."""
    above = each.above
    taus: dict[str, Estimate | None] = {"tau": each.tau, **{f"given_{name}": each.given.get(name) for name in sizes}}
    taus["above_size"] = None if above is None else above.difference
    ends = {name: _ends(name, tau) for name, tau in taus.items()}
    about = {"n": each.tau.n, "n_finite": each.n_finite, "sign": each.sign.value, "tau_p": each.p_value}
    partial = {key: value for name in sizes for key, value in ends[f"given_{name}"].items()}
    compared = {**ends["above_size"], "above_size_p": "" if above is None else above.p_value}
    return {"score": each.name, **ends["tau"], **about, **partial, **compared}


def _ends(name: str, estimate: Estimate | None) -> dict[str, float | str]:
    values = [math.nan] * 3 if estimate is None else [estimate.value, estimate.low, estimate.high]
    cells = ["" if math.isnan(value) else value for value in values]
    return dict(zip((name, f"{name}_low", f"{name}_high"), cells, strict=True))


def _print(result: Calibration, folder: Path) -> None:
    from rich.table import Table

    console = shared.console()
    shown = Table("score", box=None, pad_edge=False)
    against = [f"above {result.baseline}", "p"] if result.baseline else []
    for heading in ("tau", "95 % interval", "n", "sign", "p", *(f"given {name}" for name in result.sizes), *against):
        shown.add_column(heading, justify="right", no_wrap=True)
    for each in _standings(result):
        partial = [_short(each.given.get(name)) for name in result.sizes]
        above = _above(each.above) if against else []
        interval = "" if math.isnan(each.tau.low) else f"{each.tau.low:.2f} to {each.tau.high:.2f}"
        p_value = f"{each.p_value:.2g}"
        shown.add_row(
            each.name, _short(each.tau), interval, str(each.n_finite), each.sign.value, p_value, *partial, *above
        )
    console.print(shown, "")
    console.print(f"{result.n} architectures; p corrected for the number of scores (Holm).", soft_wrap=True)
    if result.combination is not None:
        console.print(
            f"combination: cross-validated, as is the best single score, {result.combination.single}.", soft_wrap=True
        )
    if result.ceiling is not None:
        console.print(f"Between two trainings of the same architectures: tau {result.ceiling}.", soft_wrap=True)
    console.print("", result.text, "", sep="\n", markup=False, soft_wrap=True)
    files = ", ".join(sorted(path.name for path in folder.iterdir() if "-" not in path.suffix))
    console.print(f"{folder}: {files}", markup=False, soft_wrap=True)


def _short(estimate: Estimate | None) -> str:
    return "" if estimate is None or math.isnan(estimate.value) else f"{estimate.value:.2f}"


def _above(comparison: Comparison | None) -> list[str]:
    return ["", ""] if comparison is None else [_short(comparison.difference), f"{comparison.p_value:.2g}"]
