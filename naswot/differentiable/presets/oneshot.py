"""One-shot searches: random search with weight sharing, SPOS, SETN, ENAS.

Papers: Li & Talwalkar, Random Search and Reproducibility for Neural Architecture Search, UAI 2019, arXiv:1902.07638;
Guo et al., Single Path One-Shot Neural Architecture Search with Uniform Sampling, ECCV 2020, arXiv:1904.00420; Dong &
Yang, One-Shot Neural Architecture Search via Self-Evaluated Template Network, ICCV 2019, arXiv:1910.05733, with the
constants of its authors' search of NAS-Bench-201; Pham et al., Efficient Neural Architecture Search via Parameter
Sharing, ICML 2018, arXiv:1802.03268, its search for cells. Original codes: github.com/liamcli/randomNAS_release,
github.com/megvii-model/SinglePathOneShot, github.com/D-X-Y/AutoDL-Projects, github.com/melodyguan/enas. Differences:
those of ``paths.py``, ``picking.py`` and ``controller.py``. What is compared at the end gets its own statistics of the
normalisation in all four, as under those of a supernet of paths architectures are hardly better than chance; learning
rates change from epoch to epoch; random search compares 100 architectures once, as the searches of NAS-Bench-201 do,
where its authors compare 1,000 on ten batches and the best 10 of them on all images; no dropout and no second
classifier in ENAS.
"""

from __future__ import annotations

from naswot.differentiable.controller import ControlledPath, ControllerSteps
from naswot.differentiable.paths import CostWindow, TemplatePath, UniformPath
from naswot.differentiable.picking import BestOf, EvolveOnSupernet
from naswot.differentiable.plan import SearchPlan, Stage, WeightSteps
from naswot.differentiable.preset import register_preset


@register_preset("Li & Talwalkar, UAI 2019, arXiv:1902.07638")
def random_ws(n: int = 100, recalibration: int = 20) -> SearchPlan:
    """Random search with weight sharing: uniform paths, then the best of some random architectures.

    Args:
        n: architectures that are compared.
        recalibration: training batches for the statistics of the normalisation of each; 0: those of the supernet.
    """
    return SearchPlan(
        relaxation=UniformPath(),
        architect=None,
        stages=(Stage(epochs=150),),
        selection=BestOf(n=n, recalibration=recalibration),
        weights=WeightSteps(clip_norm=1.0),
    )


@register_preset("Guo et al., ECCV 2020, arXiv:1904.00420")
def spos(
    batch_size: int = 1024,
    population: int = 50,
    generations: int = 20,
    recalibration: int = 200,
    windows: tuple[CostWindow, ...] = (),
) -> SearchPlan:
    """SPOS: uniform paths, then an evolution by the weights of the supernet.

    A tenth of the training images is held out; the paper holds out 50 of each class of ImageNet.

    Args:
        batch_size: N; the learning rate, 0.5 at 1024, is proportional to it.
        population: architectures of a generation.
        generations: of them.
        recalibration: training batches for the statistics of the normalisation of each architecture.
        windows: costs within which paths and candidates have to lie, such as MACs of at most 330 million.
    """
    return SearchPlan(
        relaxation=UniformPath(windows),
        architect=None,
        stages=(Stage(epochs=120),),
        selection=EvolveOnSupernet(
            population=population, generations=generations, recalibration=recalibration, windows=windows
        ),
        weights=WeightSteps(
            learning_rate=0.5 * batch_size / 1024,
            final_learning_rate=0.0,
            schedule="linear",
            weight_decay=4e-5,
            clip_norm=None,
        ),
        batch_size=batch_size,
        valid_fraction=0.1,
        label_smoothing=0.1,
    )


@register_preset("Dong & Yang, ICCV 2019, arXiv:1910.05733")
def setn(n: int = 100, recalibration: int = 20) -> SearchPlan:
    """SETN: uniform paths train the weights, the template of all options the alphas, which draw the candidates.

    Args:
        n: architectures that are compared.
        recalibration: training batches for the statistics of the normalisation of each; 0: those of the supernet.
    """
    return SearchPlan(
        relaxation=TemplatePath(),
        stages=(Stage(epochs=250),),
        selection=BestOf(n=n, recalibration=recalibration),
        weights=WeightSteps(nesterov=True, weight_decay=5e-4),
    )


@register_preset("Pham et al., ICML 2018, arXiv:1802.03268")
def enas(
    n: int = 10,
    recalibration: int = 20,
    steps: int = 30,
    samples: int = 10,
    controller_learning_rate: float = 0.0035,
    entropy_weight: float = 1e-4,
    hidden: int = 100,
    bound: float = 2.5,
    temperature: float = 5.0,
) -> SearchPlan:
    """ENAS: a controller draws the paths and learns from their accuracy after each epoch.

    Args:
        n: architectures that are compared at the end; NAS-Bench-201 compares 100.
        recalibration: training batches for the statistics of the normalisation of each; 0: those of the supernet.
        steps: of the controller after each epoch.
        samples: architectures of one step.
        controller_learning_rate: of Adam.
        entropy_weight: of the entropy, nats, that is added to the reward.
        hidden: units of the controller.
        bound: of its logits, by a tanh.
        temperature: by which they are divided before.
    """
    controller = ControllerSteps(
        hidden=hidden,
        bound=bound,
        temperature=temperature,
        steps=steps,
        samples=samples,
        learning_rate=controller_learning_rate,
        entropy_weight=entropy_weight,
    )
    return SearchPlan(
        relaxation=ControlledPath(steps=controller),
        architect=None,
        stages=(Stage(epochs=150),),
        selection=BestOf(n=n, recalibration=recalibration),
        weights=WeightSteps(
            learning_rate=0.05,
            final_learning_rate=0.0005,
            schedule="cosine_restarts",
            nesterov=True,
            weight_decay=1e-4,
        ),
        batch_size=160,
        valid_fraction=0.1,
    )
