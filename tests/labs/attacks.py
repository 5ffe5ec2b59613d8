"""What a hostile cell might do. ``{hidden}`` is a file of the grader's, ``{grader}`` its process."""

from __future__ import annotations

LOOPS = {
    "an endless loop": "while True: pass",
    "a loop that swallows every exception": (
        "import signal\nfor s in range(1, 32):\n    try: signal.signal(s, signal.SIG_IGN)\n"
        "    except Exception: pass\n"
        "while True:\n    try:\n        while True: pass\n    except BaseException: pass"
    ),
    "sleep": "import time; time.sleep(1000)",
    "a regular expression that holds the lock": "import re; re.match('(a|a)*b', 'a' * 40)",
    "a thread that keeps the worker busy": "import threading; e = threading.Event(); e.wait()",
}
DEATHS = {
    "_exit": "import os; os._exit(0)",
    "a segmentation fault": "import ctypes; ctypes.string_at(8)",
    "abort": "import os; os.abort()",
    "closing the link": "import os; os.close(3)",
    "an x32 system call": "import ctypes; ctypes.CDLL(None).syscall(0x40000000 + 39)",
}
ERRORS = {
    "fork": ("import os\nos.fork()", {"PermissionError"}),
    "a fork bomb": ("import os\nwhile True: os.fork()", {"PermissionError"}),
    "double fork and setsid": (
        "import os\nif os.fork() == 0:\n    os.setsid(); os.fork()",
        {"PermissionError"},
    ),
    "a subprocess": ("import subprocess\nsubprocess.run(['/bin/ls'])", {"PermissionError"}),
    "posix_spawn": ("import os\nos.posix_spawn('/bin/ls', ['ls'], {{}})", {"PermissionError"}),
    "multiprocessing": (
        "import multiprocessing as m\nm.get_context('fork').Process(target=print).start()",
        {"PermissionError"},
    ),
    "exec": ("import os\nos.execv('/bin/ls', ['ls'])", {"PermissionError"}),
    "threads without end": (
        "import threading as t, time\nwhile True: t.Thread(target=time.sleep, args=[9]).start()",
        {"RuntimeError", "MemoryError"},
    ),
    "a tensor of 10 GB": ("import torch\ntorch.ones(10 << 30, dtype=torch.uint8)", {"RuntimeError"}),
    "an array of 10 GB": ("import numpy as np\nnp.ones(10 << 30, np.uint8)", {"MemoryError", "Exception"}),
    "a list of 10 GB": ("x = [0] * (10 << 27)", {"MemoryError"}),
    "a shared map of 10 GB": ("import mmap\nmmap.mmap(-1, 10 << 30)", {"OSError"}),
    "memory in a file without name": ("import os\nos.memfd_create('x')", {"PermissionError"}),
    "memory in pipes": ("import os\nwhile True: os.pipe()", {"OSError"}),
    "a big file": ("with open('x', 'wb') as f:\n    while True: f.write(bytes(1 << 20))", {"OSError"}),
    "many files": ("for i in range(100000): open(str(i), 'w').write('x')", {"OSError"}),
    "deep folders": (
        "import os\nfor i in range(1000):\n    os.mkdir('d'); os.chdir('d')",
        {"OSError", "PermissionError"},
    ),
    "SystemExit": ("import sys\nsys.exit(0)", {"SystemExit"}),
    "a syntax error": ("def f(:", {"SyntaxError"}),
    "deep recursion": ("def f(): return f()\nf()", {"RecursionError"}),
    "an exception whose name tells": (
        "class HiddenInput42(Exception): pass\nraise HiddenInput42",
        {"Exception"},
    ),
    "an exception that cannot be printed": (
        "class E(ValueError):\n    def __str__(self): raise SystemExit\nraise E",
        {"Exception"},
    ),
}
"""Source, and the types of what it may raise."""

GAINS = {
    "reading the hidden file": "print('GAINED', open({hidden!r}).read())",
    "reading it through a link": "import os; os.symlink({hidden!r}, 'l'); print('GAINED', open('l').read())",
    "a hard link": "import os; os.link({hidden!r}, 'h'); print('GAINED')",
    "listing its folder": "import os; print('GAINED', os.listdir(os.path.dirname({hidden!r})))",
    "listing the root": "import os; print('GAINED', os.listdir('/'))",
    "the password file": "print('GAINED', open('/etc/passwd').read())",
    "importing it": (
        "import sys, os; sys.path = [os.path.dirname({hidden!r})]\nimport hidden; print('GAINED')"
    ),
    "importing qviz": "import qviz; print('GAINED')",
    "importing qviz without the finder": (
        "import sys; sys.meta_path = [f for f in sys.meta_path if 'Absent' not in repr(f)]\n"
        "sys.path.insert(0, {package!r})\nimport qviz.core; print('GAINED')"
    ),
    "the grader's environment": "print('GAINED', open('/proc/{grader}/environ').read())",
    "its memory": "print('GAINED', open('/proc/{grader}/mem', 'rb').read(1))",
    "its command line": "print('GAINED', open('/proc/{grader}/cmdline').read())",
    "its open files": "import os; print('GAINED', os.listdir('/proc/{grader}/fd'))",
    "its files of old": "import os; print('GAINED', os.readlink('/proc/{grader}/cwd'))",
    "the maps of process 1": "print('GAINED', open('/proc/1/maps').read())",
    "own environment as a file": "print('GAINED', open('/proc/self/environ').read())",
    "what others wrote": "import glob; print('GAINED' if glob.glob({temporary!r} + '/*') else '')",
    "objects in memory": (
        "import gc, sys\n"
        "if any('hidden %d' % 4711 in repr(o)[:10000] for o in gc.get_objects()): print('GAINED')\n"
        "if any('judge' in m or m.startswith('qviz') for m in sys.modules): print('GAINED')"
    ),
    "frames of the worker": (
        "import sys\nf = sys._getframe()\nwhile f:\n"
        "    if 'hidden %d' % 4711 in str(f.f_locals): print('GAINED')\n    f = f.f_back"
    ),
    "tracing the parent": (
        "import ctypes, os\nif ctypes.CDLL(None).ptrace(16, os.getppid() or 1, 0, 0) == 0: print('GAINED')"
    ),
    "killing the parent": "import os; os.kill(os.getppid(), 9); print('GAINED')",
    "killing everything": "import os; os.kill(-1, 9); print('GAINED')",
    "killing the group": "import os; os.killpg(0, 9); print('GAINED')",
    "killing the grader": "import os; os.kill({grader}, 9); print('GAINED')",
    "slowing the grader": "import os; os.setpriority(os.PRIO_PROCESS, {grader}, 19); print('GAINED')",
    "limiting the grader": (
        "import resource; resource.prlimit({grader}, resource.RLIMIT_NOFILE, (1, 1)); print('GAINED')"
    ),
    "raising limits": "import resource; resource.setrlimit(resource.RLIMIT_AS, (-1, -1)); print('GAINED')",
    "a TCP connection": "import socket; socket.create_connection(('127.0.0.1', 22), 1); print('GAINED')",
    "a TCP port": "import socket; s = socket.socket(); s.bind(('127.0.0.1', 0)); print('GAINED')",
    "a UNIX socket": "import socket; socket.socket(socket.AF_UNIX); print('GAINED')",
    "a download": "import urllib.request; urllib.request.urlopen('http://127.0.0.1:1/'); print('GAINED')",
    "torch.hub": "import torch; torch.hub.load('a/b', 'c'); print('GAINED')",
    "io_uring": "import ctypes\nif ctypes.CDLL(None).syscall(425, 8, bytes(200)) >= 0: print('GAINED')",
    "new namespaces": "import ctypes\nif ctypes.CDLL(None).unshare(0x10000000) == 0: print('GAINED')",
    "a mount": "import ctypes\nif not ctypes.CDLL(None).mount(b'proc', b'.', b'proc', 0, 0): print('GAINED')",
    "chroot": "import os; os.chroot('.'); print('GAINED')",
    "clone": "import ctypes\nif ctypes.CDLL(None).syscall(56, 17, 0, 0, 0, 0) >= 0: print('GAINED')",
    "clone3": (
        "import ctypes\nb = (b'\\0' * 32 + b'\\x11' + b'\\0' * 31)\n"
        "if ctypes.CDLL(None).syscall(435, b, 64) >= 0: print('GAINED')"
    ),
    "writing to the temporary folder": "open({temporary!r} + '/qviz-gained', 'w'); print('GAINED')",
    "writing to shared memory": "open('/dev/shm/qviz-gained', 'w'); print('GAINED')",
    "writing beside the hidden file": "open({hidden!r} + '.new', 'w'); print('GAINED')",
    "emptying the hidden file": "import os; os.truncate({hidden!r}, 0); print('GAINED')",
    "removing the hidden file": "import os; os.remove({hidden!r}); print('GAINED')",
}
"""Each prints GAINED if it succeeds."""

LIES = {
    "garbage": "import os; os.write(3, b'x' * 100)",
    "a header of 2 GB": "import os, struct; os.write(3, struct.pack('<4sIQ', b'QVZ1', 2 ** 31, 0))",
    "buffers of 1 TB": "import os, struct; os.write(3, struct.pack('<4sIQ', b'QVZ1', 2, 1 << 40) + b'{{}}')",
    "brackets without end": (
        "import os, struct; t = b'[' * 900000; os.write(3, struct.pack('<4sIQ', b'QVZ1', len(t), 0) + t)"
    ),
    "keys that cannot be keys": (
        'import os, struct; t = b\'{{"fields":{{"value":{{"dict":[[[],1]]}}}},"arrays":[]}}\'\n'
        "os.write(3, struct.pack('<4sIQ', b'QVZ1', len(t), 0) + t)"
    ),
    "a list for an object": (
        "import os, struct; t = b'[]'; os.write(3, struct.pack('<4sIQ', b'QVZ1', len(t), 0) + t)"
    ),
    "a number of 5000 digits": (
        "import os, struct; t = b'{{\"fields\":{{\"a\":' + b'9' * 5000 + b'}},\"arrays\":[]}}'\n"
        "os.write(3, struct.pack('<4sIQ', b'QVZ1', len(t), 0) + t)"
    ),
    "an array larger than its bytes": (
        'import os, struct; t = b\'{{"fields":{{}},"arrays":[{{"dtype":"<f4","shape":[99]}}]}}\'\n'
        "os.write(3, struct.pack('<4sIQ', b'QVZ1', len(t), 4) + t + b'1234')"
    ),
    "an array of objects": (
        'import os, struct; t = b\'{{"fields":{{}},"arrays":[{{"dtype":"|O8","shape":[1]}}]}}\'\n'
        "os.write(3, struct.pack('<4sIQ', b'QVZ1', len(t), 8) + t + b'12345678')"
    ),
    "answers written in advance": (
        'import os, struct; t = b\'{{"fields":{{"value":1}},"arrays":[]}}\'\n'
        "os.write(3, 50 * (struct.pack('<4sIQ', b'QVZ1', len(t), 0) + t))"
    ),
}
"""Each is written into the link while a request waits for its answer."""
