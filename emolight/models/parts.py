"""Parts of a model: front-ends, networks and augmentations, chosen by name and remembered as plain values."""

import functools
import inspect
from collections.abc import Callable
from enum import Enum
from importlib import import_module
from pathlib import Path
from typing import Any, Self

import numpy as np
from torch import Tensor, nn

from emolight.errors import EmolightError, nearest, trusted_module

GIVEN = ("sample_rate", "in_channels", "num_classes")
"""Arguments that the classifier gives. They are no part of a specification."""

Spec = dict[str, Any]
"""``{"class_path": "emolight.models.augment.Gain", "init_args": {"decibels": 3.0}}``, plain values only."""


class Part:
    """Remembers the arguments that an object was made of, so that a checkpoint can make it again.

    A class of your own needs nothing more than to derive from :class:`~emolight.models.features.Features`,
    :class:`~emolight.models.networks.Network` or :class:`~emolight.models.augment.Augmentation`.

    Example:
        >>> Gain(6.0).spec
        {'class_path': 'emolight.models.augment.Gain', 'init_args': {'decibels': 6.0, 'p': 1.0}}
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Note the arguments before the class sees them. Copying and unpickling call it without any."""
        part = super().__new__(cls)
        known = parameters(cls)
        # Defaults too, so that a checkpoint does not depend on them.
        named = {name: one.default for name, one in known.items() if one.default is not one.empty}
        part.__dict__["_arguments"] = {**named, **dict(zip(known, args, strict=False)), **kwargs}
        return part

    @property
    def spec(self) -> Spec:
        """Class and arguments in plain values, without :data:`GIVEN`.

        Raises:
            EmolightError: an argument is no plain value.
        """
        return spec_of(type(self), self.__dict__["_arguments"])


def spec_of(part: type, arguments: dict[str, Any]) -> Spec:
    """The specification of a class with some arguments."""
    own = {name: _plain(name, value) for name, value in arguments.items() if name not in GIVEN}
    return {"class_path": f"{part.__module__}.{part.__qualname__}", "init_args": own}


def described(value: Any) -> str:
    """A value of a configuration in words: of a specification ``MFCC (n_mels 64, n_mfcc 40)``, of several ``A + B``."""
    if isinstance(value, list) and any(isinstance(one, dict) for one in value):
        return " + ".join(map(described, value))
    if not (isinstance(value, dict) and "class_path" in value):
        return str(value)
    name, given = str(value["class_path"]).rpartition(".")[2], value.get("init_args") or {}
    words = ", ".join(f"{key} {described(one)}" for key, one in given.items() if one is not None)
    return f"{name} ({words})" if words else name


def parameters(part: type) -> dict[str, inspect.Parameter]:
    """The arguments of a class by name; ``**options`` stands for those of the class above."""
    found: dict[str, inspect.Parameter] = {}
    for cls in part.__mro__:
        if "__init__" in cls.__dict__:
            _, *own = inspect.signature(cls.__dict__["__init__"]).parameters.values()
            many = [one for one in own if one.kind in (one.VAR_KEYWORD, one.VAR_POSITIONAL)]
            found |= {one.name: one for one in own if one.name not in found and one not in many}
            if not any(one.kind is one.VAR_KEYWORD for one in many):
                break
    return found


def subclasses(base: type) -> dict[str, type]:
    """The classes below ``base`` that are known by now, by name; of two, the later one."""
    found: dict[str, type] = {}
    part: type
    for part in base.__subclasses__():
        found |= {part.__name__: part, **subclasses(part)}
    return {name: part for name, part in found.items() if name[0] != "_" and not vars(part).get("hidden")}


def build(spec: str | Spec, base: type) -> Callable[..., Any]:
    """The class that a specification names, with its arguments filled in and checked.

    Args:
        spec: a short name such as ``"ResNet18"``, a full one such as ``"my_module.MyNet"``, or
            ``{"class_path": name, "init_args": {...}}``.
        base: what the class must derive from, or from ``base.accepts``.

    Returns:
        Call it with what :data:`GIVEN` names, in the order of the class.

    Raises:
        EmolightError: an unknown class or argument, or a module that may not be imported; see ``errors.IMPORTS``.

    Example:
        >>> build({"class_path": "MFCC", "init_args": {"n_mels": 80}}, Features)(16000)
    """
    spec = {"class_path": spec} if isinstance(spec, str) else spec
    if not isinstance(spec, dict) or not isinstance(spec.get("class_path"), str):
        raise EmolightError(f"A part of the model is {spec!r}.", 'Write {"class_path": NAME, "init_args": {...}}.')
    part: Any = _find(spec["class_path"], base)
    arguments = spec.get("init_args") or {}
    own = {name: one for name, one in parameters(part).items() if name not in GIVEN}
    for name in arguments:
        if name not in own:
            problem = f"{part.__name__} has no argument '{name}'."
            raise EmolightError(problem, f"{nearest(str(name), own)}Valid: {', '.join(own) or 'none'}.")
    if missing := [name for name, one in own.items() if one.default is one.empty and name not in arguments]:
        raise EmolightError(f"{part.__name__} needs {', '.join(missing)}.", "Give it among the init_args.")
    return functools.partial(part, **arguments)


def maker(part: Any, base: type) -> Callable[..., Any]:
    """What makes a part: of a name, a specification, a class, or an augmentation itself, which is not made for data."""
    if not isinstance(part, nn.Module):
        return build(part, base) if isinstance(part, (str, dict)) else part

    def kept(*given: Any) -> Any:
        if given:
            name = type(part).__name__
            problem = f"{base.__name__.lower()} is one {name}; expected what makes it for the data."
            raise EmolightError(problem, f"Give the class, or functools.partial({name}, ...).")
        return part

    return kept


def _find(path: str, base: type) -> type:
    known = subclasses(base)
    module, _, name = path.rpartition(".")
    if not module and path in known:
        return known[path]
    if not module:
        fix = f"{nearest(path, known)}Valid: {', '.join(sorted(known))}; or a class of yours: my_module.MyClass."
        raise EmolightError(f"Unknown {base.__name__.lower()}: '{path}'.", fix)
    trusted_module(f"The {base.__name__.lower()}", path)
    try:
        part: Any = getattr(import_module(module), name, None)
    except ImportError as error:
        raise EmolightError(f"'{path}' cannot be imported: {error}.", "Is its folder in PYTHONPATH?") from None
    if not isinstance(part, type):
        raise EmolightError(f"There is no class '{path}'.", nearest(name, known))
    if not issubclass(part, getattr(base, "accepts", base)):
        problem = f"'{path}' does not derive from {base.__name__}."
        raise EmolightError(problem, f"Write: class {name}({base.__module__}.{base.__name__})")
    return part


def _plain(name: str, value: Any) -> Any:
    """The value as what ``torch.load(weights_only=True)`` reads."""
    if isinstance(value, (np.generic, Enum)):
        value = value.item() if isinstance(value, np.generic) else value.value
    if value is None or isinstance(value, (bool, int, float, str)):  # or a type of jsonargparse's below these
        return next((kind(value) for kind in (bool, int, float, str) if isinstance(value, kind)), None)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (list, tuple)):
        return [_plain(name, one) for one in value]
    if isinstance(value, dict):
        return {str(key): _plain(name, one) for key, one in value.items()}
    problem = f"Argument '{name}' is a {type(value).__name__}; a checkpoint holds plain values only."
    raise EmolightError(problem, "Give numbers, texts, or lists and dicts of them.")


def without_cast(fn: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """``fn`` of ``nn.Module._apply``, which moves and casts, without the cast: what must stay float32 stays so."""
    return lambda tensor: moved if (moved := fn(tensor)).dtype == tensor.dtype else tensor.to(moved.device)


class Float32(nn.Module):
    """A module whose buffers and parameters stay float32, whatever the precision around it."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        return super()._apply(without_cast(fn), recurse)  # type: ignore[no-untyped-call]
