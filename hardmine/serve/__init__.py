"""Pages on one's own machine over an index: ask, look, check, and keep what was found.

``app`` puts the server together: ``access`` decides who is answered, ``pages`` makes HTML, ``api``
answers with JSON. Both read one ``Workspace``.
"""

from hardmine.serve.workspace import Workspace, open_workspace

__all__ = ["Workspace", "open_workspace"]
