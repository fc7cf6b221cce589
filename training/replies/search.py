"""A small search for learning rate, rank and lambda, by short trainings on a part of the examples.

Source: Akiba et al., Optuna, KDD 2019; the tree-structured Parzen estimator of Bergstra et al. 2011
proposes, trials worse than the median at the same step are cut off.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from training.replies.fitting import Bench
from training.replies.loop import Progress
from training.replies.recipe import Recipe

EXAMPLES = 160
STEPS = 20
CHECKS = 4
RATES = (1e-5, 5e-3)
RANKS = (4, 8, 16)
WEIGHTS = (0.03, 1.0)


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        recipe: The one to train by: the given one with the best values.
        values: Of the best trial, by name.
        loss: Its validation loss, with the action loss as the given lambda counts it.
        trials: How many there were.
        pruned: How many of them were cut off.
    """

    recipe: Recipe
    values: Mapping[str, Any]
    loss: float
    trials: int
    pruned: int


def search(bench: Bench, recipe: Recipe, trials: int, work: Path, progress: Progress) -> Found:
    """Return the best of some recipes.

    All trials are judged by the loss that the given lambda makes, or a trial that sets lambda to
    nothing would always win. Lambda is searched only where one is given.

    Args:
        bench: Base and examples; must have some to validate on.
        recipe: What is not searched.
        trials: How many.
        work: A folder for what the trials write; it is removed.
        progress: Takes one line at a time.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    part = list(bench.training)
    random.Random(recipe.seed).shuffle(part)
    small = replace(bench, training=part[:EXAMPLES])

    def objective(trial: optuna.Trial) -> float:
        values: dict[str, Any] = {
            "learning_rate": trial.suggest_float("learning_rate", *RATES, log=True),
        }
        if bench.start is None:
            values["rank"] = trial.suggest_categorical("rank", RANKS)
        if recipe.action_weight:
            values["action_weight"] = trial.suggest_float("action_weight", *WEIGHTS, log=True)
        tried = replace(recipe, **values, max_steps=STEPS, epochs=100, checks=CHECKS, patience=0)
        least = float("inf")

        def watch(step: int, reply: float, action: float) -> None:
            nonlocal least
            least = min(least, reply + recipe.action_weight * action)
            trial.report(least, step)
            if trial.should_prune():
                raise optuna.TrialPruned

        try:
            small.fit(tried, work, _quiet, watch=watch)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        shown = ", ".join(f"{name} {value:.3g}" for name, value in values.items())
        progress(f"trial {trial.number + 1} of {trials}: {shown}: {least:.3f}")
        return least

    study = optuna.create_study(
        sampler=optuna.samplers.TPESampler(seed=recipe.seed, n_startup_trials=max(2, trials // 3)),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=2),
    )
    study.optimize(objective, n_trials=trials)
    pruned = sum(t.state is optuna.trial.TrialState.PRUNED for t in study.trials)
    best = study.best_trial
    progress(f"best of {trials} trials, {pruned} cut off: {best.params}, loss {best.value:.3f}")
    return Found(
        replace(recipe, **best.params), best.params, float(best.value or 0.0), trials, pruned
    )


def _quiet(_line: str) -> None:
    """A trial's own lines would bury the search's."""
