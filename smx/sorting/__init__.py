"""`sort` brings neurons that share an activation side by side; `refusals` says which layers stay unsorted, and why."""

from smx.sorting.sorter import plan as plan
from smx.sorting.sorter import refusals as refusals
from smx.sorting.sorter import sort as sort
