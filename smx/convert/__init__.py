"""From a plain module to phase 1 (`select`), and from phase 1 to phase 2 (`commit`)."""

from smx.convert.dissolving import Dissolved as Dissolved
from smx.convert.dissolving import dissolve as dissolve
from smx.convert.dissolving import dissolved as dissolved
from smx.convert.phases import ACTIVATION_MODULES as ACTIVATION_MODULES
from smx.convert.phases import commit as commit
from smx.convert.phases import plan as plan
from smx.convert.phases import replace as replace
from smx.convert.phases import select as select
from smx.convert.table import Plan as Plan
from smx.convert.table import Row as Row
