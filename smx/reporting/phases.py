"""Table 3: the accuracies of each phase."""

from __future__ import annotations

import pandas as pd

from smx.reporting.study import SMARTMIXED, Section


def table_3(section: Section, method: str = SMARTMIXED) -> pd.DataFrame:
    """Return the accuracies of each phase by architecture, means over the seeds.

    Columns: architecture, phase ("phase 1", "phase 1, sampled", "phase 2"; sampled is with the noise left on, as the
    author's code evaluates), validation_accuracy, validation_deviation, test_accuracy, test_deviation, n,
    paper_validation, paper_test (of the paper's largest network; None for others).
    """
    raise NotImplementedError


def curves(section: Section, architecture: str, method: str = SMARTMIXED) -> pd.DataFrame:
    """Return means over the seeds of what epochs recorded (figures 1, 2): phase, epoch (in the phase), train_loss,
    validation_loss, train_accuracy, validation_accuracy. Only epochs that all seeds have.
    """
    raise NotImplementedError
