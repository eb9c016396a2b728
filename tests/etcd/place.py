"""Where etcd's test files are looked for."""

import os
from pathlib import Path
from typing import Final

from tests.unit.project import ROOT

ETCD_FILES: Final = "TIMEMACHINE_ETCD_FILES"
"""Names another folder."""
ETCD_FILES_REQUIRED: Final = "TIMEMACHINE_ETCD_FILES_REQUIRED"
"""If it is `1`, tests fail when the files are not there; otherwise they are skipped."""

DEFAULT_FOLDER: Final = ROOT.parent / "shared" / "etcd-raft"
FOLDER: Final = Path(os.environ.get(ETCD_FILES) or DEFAULT_FOLDER)
