"""How well does a policy balance? Simulated fleets that misbehave, driven by the compiled pickers.

Entry points: `load_scenario`, `simulate`, `figures_of` and `compare`. Scenarios are data, in `scenarios/`. Read
`scenario.py` first, then `simulation.py`.
"""

from .compare import Estimate, Result, compare, estimate
from .figures import Figures, StepFigures, figures_of
from .scenario import Scenario, load_scenario, parse_scenario, scenario_names
from .simulation import simulate
from .trace import Trace
from .variants import BARE, Variant, parse_variant

__all__ = [
    "BARE",
    "Estimate",
    "Figures",
    "Result",
    "Scenario",
    "StepFigures",
    "Trace",
    "Variant",
    "compare",
    "estimate",
    "figures_of",
    "load_scenario",
    "parse_scenario",
    "parse_variant",
    "scenario_names",
    "simulate",
]
