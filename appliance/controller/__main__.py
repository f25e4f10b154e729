"""`python -m appliance.controller` is `picketctl`."""

from __future__ import annotations

import sys

from appliance.controller.cli import main

sys.exit(main())
