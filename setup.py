"""Everything else is in pyproject.toml: here the recipes and sweeps are put into the wheel, beside the modules."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class WithRecipes(build_py):
    """An editable install finds them where they are written."""

    def run(self) -> None:
        """Copy them beside the modules."""
        super().run()
        for kind in ("configs", "sweeps") if not self.editable_mode else ():
            for path in Path(kind).rglob("*.yaml"):
                copy = Path(self.build_lib, "emolight", path)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)


setup(cmdclass={"build_py": WithRecipes})
