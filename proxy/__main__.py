"""`python -m proxy` is `refusal-proxy`."""

import sys

from proxy.assembly.cli import main

sys.exit(main())
