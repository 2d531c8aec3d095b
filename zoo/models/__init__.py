"""Models: what a run leaves and ``zoo.load`` returns. One file a task, registered in ``zoo.registry.TASKS``.

A task is a subclass of :class:`zoo.models.base.Model` and owns all that depends on it: its verbs, what ``zoo sample``
writes and ``zoo export`` exports, its preview, its probe, its scores. Nothing outside its file asks which task a model
has. No game is imported. Nothing here changes the global random state.
"""

from zoo.models.base import AttributeGoals, Bench, Model, Pairs, Program, build_model

__all__ = ["AttributeGoals", "Bench", "Model", "Pairs", "Program", "build_model"]
