"""The passes of the compiler, one class a file."""

from __future__ import annotations

from smx.export.passes.base import Rewriting as Rewriting
from smx.export.passes.fold_affine import FoldAffine as FoldAffine
from smx.export.passes.lower_in_place import LowerInPlace as LowerInPlace
from smx.export.passes.lower_to_scatter import LowerToScatter as LowerToScatter
from smx.export.passes.lower_to_sorted import LowerToSorted as LowerToSorted
from smx.export.passes.merge_groups import MergeGroups as MergeGroups
from smx.export.passes.name_by_module import NameByModule as NameByModule
