import gzip
import hashlib
import http.server
import importlib.util
import io
import subprocess
import sys
import tarfile
import threading
from collections import Counter
from pathlib import Path

import pytest

from minifast import archives, datasets
from minifast.datasets import URLs, data_folder, untar_data

MNIST = Path(__file__).parents[2] / "shared/data/mnist"
FILES = {"digits/a.txt": b"a" * 3000, "digits/sub/b.txt": bytes(range(256)) * 20}


def archive(files=FILES, kind=tarfile.REGTYPE, link=""):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.type, member.linkname = len(data), kind, link
            tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("MINIFAST_HOME", str(tmp_path / "home"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "home"


@pytest.fixture
def file_url(tmp_path):
    def url(data):
        (tmp_path / "digits.tgz").write_bytes(data)
        return (tmp_path / "digits").as_uri()
    return url


class Server(http.server.ThreadingHTTPServer):
    """Serves `body` at any address; waits for `gate` after half of it, and breaks off there if `cut`."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.body, self.cut, self.status, self.asked = archive(), False, 200, []
        self.gate, self.half_sent = threading.Event(), threading.Event()
        self.gate.set()
        self.url = f"http://127.0.0.1:{self.server_port}/digits"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        server.asked.append(self.path)
        self.send_response(server.status)
        self.send_header("Content-Length", str(len(server.body)))
        self.end_headers()
        half = len(server.body) // 2
        self.wfile.write(server.body[:half])
        server.half_sent.set()
        server.gate.wait(20)
        if not server.cut:
            self.wfile.write(server.body[half:])

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.gate.set()
        server.shutdown()
        thread.join()


def contents(folder):
    return {str(p.relative_to(folder.parent)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def nothing_left(home):
    return not home.exists() or list((home / "data").iterdir()) == []


def process(url):
    """Another Python that gets the data set."""
    code = f"from minifast.datasets import untar_data; print(untar_data({url!r}))"
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_download_is_unpacked_and_taken_from_the_folder_ever_after(server, home):
    path = untar_data(server.url)
    assert path == home / "data/digits" and contents(path) == FILES
    assert [p.name for p in (home / "data").iterdir()] == ["digits"]  # no archive, nothing temporary
    assert untar_data(server.url) == untar_data(server.url + ".tgz") == path
    assert server.asked == ["/digits.tgz"]


def test_a_folder_under_data_here_comes_first_then_the_one_at_home(tmp_path, home):
    there = home / "data/digits"
    there.mkdir(parents=True)
    (there / "x").touch()
    assert untar_data("http://nowhere.invalid/digits") == there
    here = tmp_path / "work/data/digits"
    here.mkdir(parents=True)
    assert untar_data("http://nowhere.invalid/digits") == there  # an empty folder is no data set
    (here / "x").touch()
    assert untar_data("http://nowhere.invalid/digits") == here


def test_dest_is_the_folder_that_the_data_set_is_put_into(file_url, tmp_path):
    assert untar_data(file_url(archive()), dest=tmp_path / "mine") == tmp_path / "mine/digits"
    assert contents(tmp_path / "mine/digits") == FILES


def test_force_download_replaces_what_is_there(file_url, home):
    path = untar_data(file_url(archive()))
    new = {"digits/new.txt": b"new"}
    assert contents(untar_data(file_url(archive(new)))) == FILES
    assert untar_data(file_url(archive(new)), force_download=True) == path and contents(path) == new
    with pytest.raises(ValueError):
        untar_data(file_url(b"broken"), force_download=True)
    assert contents(path) == new  # what was there is not given up for something broken
    assert [p.name for p in (home / "data").iterdir()] == ["digits"]


def test_without_a_network_the_error_says_where_to_put_the_folder_by_hand(home):
    with pytest.raises(ConnectionError, match="http://127.0.0.1:9/digits.tgz cannot be downloaded") as e:
        untar_data("http://127.0.0.1:9/digits")
    assert str(home / "data/digits") in str(e.value) and nothing_left(home)


def test_a_missing_archive_and_what_is_no_url(server, home):
    server.status = 404
    with pytest.raises(ConnectionError, match="404"):
        untar_data(server.url)
    with pytest.raises(ConnectionError, match="unknown url type"):
        untar_data("digits")
    with pytest.raises(ValueError, match="does not end in the name of a data set"):
        untar_data("http://127.0.0.1:9/..")
    assert nothing_left(home)


def test_a_download_that_breaks_off_leaves_nothing(server, home):
    server.cut = True
    with pytest.raises(ConnectionError, match=f"broke off after {len(server.body) // 2} of {len(server.body)} bytes"):
        untar_data(server.url)
    assert nothing_left(home)


def test_a_process_killed_in_the_middle_leaves_no_data_set_and_the_next_one_succeeds(server, home):
    server.gate.clear()
    killed = process(server.url)
    assert server.half_sent.wait(60)
    killed.kill()
    killed.communicate()
    server.gate.set()
    assert not (home / "data/digits").exists()
    assert contents(untar_data(server.url)) == FILES


def test_two_processes_at_once_both_get_the_whole_data_set(server, home):
    server.gate.clear()
    both = [process(server.url) for _ in range(2)]
    while len(server.asked) < 2:
        assert all(p.poll() is None for p in both)
    server.gate.set()
    for p in both:
        out, err = p.communicate(timeout=60)
        assert p.returncode == 0, err
        assert out.strip() == str(home / "data/digits")
    assert contents(home / "data/digits") == FILES
    assert [p.name for p in (home / "data").iterdir()] == ["digits"]


def test_checksums(server, home, monkeypatch):
    right = hashlib.sha256(server.body).hexdigest()
    with pytest.raises(ValueError, match=f"has the SHA-256 {right}, not 00"):
        untar_data(server.url, sha256="00" * 32)
    monkeypatch.setitem(datasets.CHECKS, server.url, (len(server.body), "00"))
    with pytest.raises(ValueError, match="begins with the MD5"):
        untar_data(server.url)
    assert nothing_left(home)
    monkeypatch.setitem(datasets.CHECKS, server.url, (len(server.body), hashlib.md5(server.body).hexdigest()))
    assert contents(untar_data(server.url, sha256=right.upper())) == FILES


def test_an_archive_cut_anywhere_or_altered_never_looks_like_a_data_set(file_url, home):
    whole = archive()
    for n in range(0, len(whole), 7):
        with pytest.raises(ValueError, match="cannot be unpacked"):
            untar_data(file_url(whole[:n]))
        assert nothing_left(home)
    altered = gzip.compress(gzip.decompress(whole).replace(b"aaaa", b"aaab", 1))[:-8] + whole[-8:]
    with pytest.raises(ValueError, match="CRC"):
        untar_data(file_url(altered))
    assert nothing_left(home)


@pytest.mark.parametrize("name", ["../evil", "digits/../../evil", "/evil"])
def test_no_member_is_written_outside(name, file_url, home, tmp_path):
    with pytest.raises(ValueError, match="outside its folder"):
        untar_data(file_url(archive({"digits/a": b"a", name: b"evil"})))
    assert nothing_left(home) and not list(tmp_path.rglob("evil"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_only_files_and_folders_are_unpacked(kind, file_url, home):
    with pytest.raises(ValueError, match="'digits/a' is neither a file nor a folder"):
        untar_data(file_url(archive({"digits/a": b""}, kind, "/etc")))
    assert nothing_left(home)


def test_an_archive_of_something_else(file_url, home):
    with pytest.raises(ValueError, match="does not hold a folder digits"):
        untar_data(file_url(archive({"letters/a": b"a"})))
    assert nothing_left(home)


def test_a_folder_that_cannot_be_made_is_explained(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("MINIFAST_HOME", str(tmp_path / "file"))
    with pytest.raises(OSError, match="set the environment variable MINIFAST_HOME"):
        untar_data(URLs.MNIST_SAMPLE)


def test_home_is_below_the_user_s_unless_set(monkeypatch, tmp_path):
    monkeypatch.delenv("MINIFAST_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert data_folder() == tmp_path / ".minifast/data"


def test_outside_a_terminal_a_download_prints_one_line_and_no_control_characters(server, capsys):
    untar_data(server.url)
    out, err = capsys.readouterr()
    assert out == "" and err == f"Downloading {server.url}.tgz (0.0 MiB)\n"


def test_the_bundled_sample_is_unpacked_without_a_network(home, monkeypatch):
    monkeypatch.setattr(datasets, "_download", None)
    path = untar_data(URLs.MNIST_SAMPLE)
    assert Counter(str(p.parent.relative_to(path)) for p in path.rglob("*.png")) == {
        "train/3": 6131, "train/7": 6265, "valid/3": 1010, "valid/7": 1028}
    header, *rows = (path / "labels.csv").read_text().splitlines()
    assert header == "name,label" and len(rows) == 14434 and rows[0] == "train/3/7.png,0"
    assert Counter(row.split("/")[1] + row[-1] for row in rows) == {"30": 7141, "71": 7293}
    assert all((path / row.split(",")[0]).is_file() for row in rows[::500])


@pytest.mark.skipif(not MNIST.is_dir(), reason="the original files of MNIST are not beside the repository")
def test_the_bundled_sample_is_what_its_script_builds():
    bundled = Path(datasets.__file__).parent / "bundled"
    spec = importlib.util.spec_from_file_location("build_mnist_sample", bundled / "build_mnist_sample.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.build(MNIST) == gzip.decompress((bundled / "mnist_sample.tgz").read_bytes())


@pytest.mark.parametrize("names, said", [
    (["digits/x", "digits/x/y"], "'digits/x/y' is a file and a folder at once"),
    (["digits/x/y", "digits/x"], "'digits/x' is a file and a folder at once"),
    (["digits/" + "n" * 300], "digits/nnn.* is none that a file can have here: File name too long"),
    (["digits/" + "d/" * 2000 + "x"], "more than 64 folders in folders"), (["digits/\0x"], None)])
def test_names_that_cannot_be_are_named_with_archive_and_url(names, said, file_url, home):
    url = file_url(archive({name: b"x" for name in names}))
    if said is None:    # tar's names end at a zero byte
        return
    with pytest.raises(ValueError, match=f"the archive of {url} cannot be unpacked: .*{said}.*put its folder at"):
        untar_data(url)
    assert nothing_left(home)


def test_an_archive_that_unpacks_to_far_more_than_its_size_is_refused(file_url, home, monkeypatch):
    monkeypatch.setattr(archives, "LARGEST", 2**20)
    monkeypatch.setattr(archives, "TIMES_LARGEST", 10)
    bombs = [{"digits/x": bytes(2**22)}, {f"digits/{i}": b"" for i in range(4000)},
             {f"digits/{i}": bytes(2**19) for i in range(8)}]
    for bomb in bombs:
        with pytest.raises(ValueError, match="cannot be unpacked.* more than 1 MiB, 10 times its own size"):
            untar_data(file_url(archive(bomb)))
        assert nothing_left(home)
    behind = gzip.compress(gzip.decompress(archive()) + bytes(2**22))     # zeros behind the archive's end
    with pytest.raises(ValueError, match="more than 1 MiB"):
        untar_data(file_url(behind))
    monkeypatch.setattr(archives, "MOST_MEMBERS", 3)
    with pytest.raises(ValueError, match="more than 3 files and folders"):
        untar_data(file_url(archive({f"digits/{i}": b"" for i in range(4)})))
    assert len(contents(untar_data(file_url(archive({f"digits/{i}": b"" for i in range(3)}))))) == 3


def test_a_header_that_would_fill_the_memory_or_is_damaged_is_refused(file_url, home, monkeypatch):
    monkeypatch.setattr(archives, "LONGEST_HEADER", 5000)
    with pytest.raises(ValueError, match="a header has 6[0-9]{3} bytes"):
        untar_data(file_url(archive({"digits/" + "n" * 6000: b"x"})))
    whole = bytearray(gzip.decompress(archive()))
    whole[whole.index(b"digits/sub/b.txt")] ^= 1     # tarfile takes that for the end, and part for the whole
    with pytest.raises(ValueError, match="a header is damaged"):
        untar_data(file_url(gzip.compress(bytes(whole))))
    assert nothing_left(home)


def test_a_sparse_file_is_refused(file_url):
    with pytest.raises(ValueError, match="'digits/a' is neither a file nor a folder"):
        untar_data(file_url(archive({"digits/a": b""}, tarfile.GNUTYPE_SPARSE)))


def test_a_full_disk_is_no_fault_of_the_archive(file_url, monkeypatch, home):
    def full(*args):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(archives.shutil, "copyfileobj", full)
    url = file_url(archive())
    with pytest.raises(OSError, match="No space left") as e:
        untar_data(url)
    assert url in e.value.__notes__[0] and nothing_left(home)


def test_without_a_home_the_error_names_the_variable_to_set(monkeypatch, tmp_path):
    import pwd
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: {}[uid])
    for name in "HOME", "MINIFAST_HOME":
        monkeypatch.delenv(name, raising=False)
    for call in data_folder, lambda: untar_data(URLs.MNIST_SAMPLE):
        with pytest.raises(RuntimeError, match="Set the environment variable MINIFAST_HOME"):
            call()
    assert untar_data(URLs.MNIST_SAMPLE, dest=tmp_path / "d").name == "mnist_sample"


def test_without_a_working_directory(monkeypatch, tmp_path, file_url, home):
    url = file_url(archive())
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert untar_data(url) == home / "data/digits"
    monkeypatch.setenv("MINIFAST_HOME", "relative")
    with pytest.raises(OSError, match="set the environment variable MINIFAST_HOME"):
        untar_data(url)
