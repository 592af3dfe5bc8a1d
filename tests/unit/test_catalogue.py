"""The table of proxies says what they declare, and the page in docs/ is up to date."""

from pathlib import Path

from naswot.catalogue import markdown_table, own_proxies, page, proxy_row
from naswot.observers import Gradient, SampleGradient
from naswot.proxy import Proxy

PAGE = Path(__file__).parents[2] / "docs" / "proxies.md"


def rule(seen, passes):
    """Nothing."""


def proxy(**fields):
    return Proxy(
        "some", rule, **({"observe": {}, "needs": (), "higher_is_better": True, "reference": "A 2020"} | fields)
    )


def test_page_in_docs_is_what_the_proxies_declare():
    assert PAGE.read_text() == page(own_proxies()), "run: python -m naswot.catalogue > docs/proxies.md"


def test_cost_follows_from_the_declaration():
    assert proxy().cost == "none"
    assert proxy(needs=("outputs",)).cost == "forward"
    assert proxy(observe={"g": Gradient(len)}).cost == "forward + backward"
    assert proxy(needs=("input_jacobian",)).cost == "forward + backward to the inputs"
    assert proxy(observe={"g": SampleGradient(len, "coupled", "logits")}).cost == "forward + N backwards"
    assert proxy(needs=("scratch",), own_cost="64 forwards").cost == "own: 64 forwards"


def test_labels_are_needed_where_the_loss_is():
    assert proxy_row(proxy(observe={"g": SampleGradient(len, "eval", "logits")}))["labels"] == "no"
    assert proxy_row(proxy(observe={"g": SampleGradient(len, "single")}))["labels"] == "yes"
    assert proxy_row(proxy(needs=("part_gradients",)))["labels"] == "yes"
    assert proxy_row(proxy(invariant_to=("order",)))["does not depend on"] == "order, labels"
    assert proxy_row(proxy(needs=("gradients",)))["does not depend on"] == ""


def test_bars_do_not_break_the_table():
    assert markdown_table([{"a": "|K|"}]) == "| a |\n| --- |\n| \\|K\\| |"
