"""Draw the pictures of the pages and of the examples: `python docs/draw.py [NAME ...]`.

A page that shows `pictures/NAME-...png` is run block by block, as the tests run it, and
each script of `examples` is run with a folder for its pictures. What they save goes
into `docs/pictures`, small enough to be kept under version control, and
`docs/pictures/drawn.json` records what each script printed and what each picture plots.

`python docs/draw.py --check [NAME ...]` writes nothing: it draws anew and fails where
what is plotted or printed is not what is recorded. Pixels are never compared.
"""

import argparse
import contextlib
import io
import json
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PICTURES = HERE / "pictures"
RECORD = PICTURES / "drawn.json"
TOLERANCE = 0.05  # of the range of an axis: other machines round otherwise


def sources() -> dict[str, Path]:
    """Return the pages and scripts that draw, by name."""
    pages = [page for page in sorted(HERE.glob("*.md")) if is_drawn(page)]
    scripts = sorted((HERE / "examples").glob("*.py"))
    return {path.stem: path for path in [*pages, *scripts]}


def is_drawn(page: Path) -> bool:
    """Tell whether a page shows pictures that its own code draws."""
    return f"pictures/{page.stem}-" in page.read_text(encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", help="pages or scripts; all by default")
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    parser.add_argument("--inside", metavar="FOLDER", help=argparse.SUPPRESS)
    options = parser.parse_args()
    names = options.names or list(sources())
    if options.inside:
        run_inside(sources()[names[0]], Path(options.inside), options.check)
        return
    recorded = read_record()
    wrong = []
    with ThreadPoolExecutor(os.cpu_count()) as pool, contextlib.ExitStack() as stack:
        runs = {}
        for name in names:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            run = pool.submit(run_outside, name, folder, options.check)
            runs[name] = run, folder
        for name, (run, folder) in runs.items():
            try:
                drawn = run.result()
            except RuntimeError as error:
                wrong.append(f"{name} failed.\n{error}")
                continue
            if options.check:
                known = recorded.get(name)
                wrong += [f"{name}: {one}" for one in differences(known, drawn)]
                continue
            recorded[name] = drawn
            keep(name, folder, drawn)
            print(f"{name}: {len(drawn['figures'])} pictures", flush=True)
    if not options.check:
        kept = {name: recorded[name] for name in sorted(sources()) if name in recorded}
        RECORD.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
    if wrong:
        sys.exit("\n".join([*wrong, "Run `python docs/draw.py` and look at them."]))


def read_record() -> dict[str, Any]:
    return json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {}


def keep(name: str, folder: Path, drawn: dict[str, Any]) -> None:
    """Move the pictures of one source into place, and remove those it left off."""
    PICTURES.mkdir(exist_ok=True)
    for stale in PICTURES.glob(f"{name}-*.*"):
        if stale.name not in drawn["figures"]:
            stale.unlink()
    for picture in drawn["figures"]:
        (PICTURES / picture).write_bytes((folder / picture).read_bytes())


# ------------------------------------------------------------------- running


def run_outside(name: str, folder: Path, is_check: bool) -> dict[str, Any]:
    """Run a page or a script in a process of its own."""
    check = ["--check"] if is_check else []
    done = subprocess.run(
        [sys.executable, __file__, "--inside", str(folder), *check, name],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "MPLBACKEND": "agg"},
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"{done.stdout}\n{done.stderr}")
    return json.loads((folder / "drawn.json").read_text(encoding="utf-8"))


def run_inside(path: Path, folder: Path, is_check: bool) -> None:
    """Run it here; leave `drawn.json` in a folder and, if not a check, pictures."""
    from matplotlib.figure import Figure

    from phihat.plot import animations

    sys.path.insert(0, str(ROOT))
    from tests import run_document

    figures: dict[str, Any] = {}

    def save(figure: Any, target: Any, **options: Any) -> None:
        del options
        name = f"{path.stem}-{Path(target).stem}.png"
        if is_check:
            draw_quickly(figure)
        else:
            write_small(figure, folder / name)
        figures[name] = plotted(figure)

    def animate(call: str, axes: Any, frames: Any, target: Any, speed: float) -> Path:
        name = f"{path.stem}-{Path(target).name}"
        if is_check:
            list(frames)
            draw_quickly(axes.figure)
        else:
            write_frames(call, axes, frames, target, speed)
            write_small_gif(target, folder / name)
        figures[name] = plotted(axes.figure)
        return target

    Figure.savefig = save
    write_frames, animations._write = animations._write, animate
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        if path.suffix == ".py":
            run_script(path, folder)
        else:
            run_document.run(path)
    output = printed.getvalue() if path.suffix == ".py" else ""
    drawn = {"output": output, "figures": figures}
    (folder / "drawn.json").write_text(json.dumps(drawn, ensure_ascii=False))


def run_script(path: Path, folder: Path) -> None:
    import runpy

    sys.argv = [str(path), str(folder)]
    runpy.run_path(str(path), run_name="__main__")


def draw_quickly(figure: Any) -> None:
    """Draw without a layout, which takes most of the time of drawing."""
    figure.set_layout_engine("none")
    figure.canvas.draw()


def write_small(figure: Any, path: Path) -> None:
    """Write a PNG of at most 256 colours and 80 kB; equal pixels give equal bytes."""
    import numpy as np
    from PIL import Image

    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3]
    picture = Image.fromarray(pixels.copy())
    for colors in (200, 128, 80, 48):
        picture.quantize(palette=palette(picture, colors), dither=0).save(
            path, format="PNG", optimize=True
        )
        if path.stat().st_size <= 80_000:
            return
    raise ValueError(f"{path.name} is {path.stat().st_size} bytes; make it smaller.")


def write_small_gif(source: Path, path: Path) -> None:
    """Write an animation of at most 80 kB, which plays three times and then rests."""
    from PIL import Image, ImageSequence

    with Image.open(source) as opened:
        frames = [frame.convert("RGB") for frame in ImageSequence.Iterator(opened)]
        times = [frame.info["duration"] for frame in ImageSequence.Iterator(opened)]
    frames = [
        frame.resize((frame.width * 3 // 4, frame.height * 3 // 4)) for frame in frames
    ]
    for colors in (48, 32, 24, 16):
        few = palette(frames[-1], colors)
        first, *rest = (frame.quantize(palette=few, dither=0) for frame in frames)
        first.save(
            path,
            save_all=True,
            append_images=rest,
            duration=times,
            loop=2,
            optimize=True,
        )
        if path.stat().st_size <= 80_000:
            return
    raise ValueError(f"{path.name} is {path.stat().st_size} bytes; draw fewer frames.")


def palette(picture: Any, number: int) -> Any:
    """Return the most frequent colours, and those of lines and markers in any case."""
    from PIL import Image, ImageColor

    from phihat.plot.styles import GREY, OKABE_ITO

    fixed = [ImageColor.getrgb(name) for name in ("white", GREY, *OKABE_ITO)]
    found = picture.quantize(number).getpalette()[: 3 * number]
    colors = [*(part for color in fixed for part in color), *found]
    image = Image.new("P", (1, 1))
    image.putpalette(colors + colors[:3] * (256 - len(colors) // 3))
    return image


# ------------------------------------------------------------------- what is plotted


def plotted(figure: Any) -> list[dict[str, Any]]:
    """Return what the axes of a figure hold, in a few numbers and words."""
    return [described(axes) for axes in figure.axes]


def described(axes: Any) -> dict[str, Any]:
    return {
        "title": axes.get_title(),
        "labels": [axes.get_xlabel(), axes.get_ylabel()],
        "legend": axes.get_legend_handles_labels()[1],
        "limits": [*rounded(axes.get_xlim()), *rounded(axes.get_ylim())],
        "lines": [summary(line) for line in axes.lines],
        "images": [rounded(levels(image.get_array())) for image in axes.images],
    }


def summary(line: Any) -> list[float]:
    """Return where a line begins and ends, and the means of its coordinates."""
    import numpy as np

    x, y = (np.asarray(part, float) for part in line.get_data())
    seen = np.isfinite(x) & np.isfinite(y)
    x, y = x[seen], y[seen]
    if not len(x):
        return []
    return rounded([x[0], y[0], x[-1], y[-1], x.mean(), y.mean()])


def levels(values: Any) -> list[float]:
    import numpy as np

    values = np.ma.masked_invalid(np.asarray(values, float)).compressed()
    return [*np.quantile(values, [0.0, 0.25, 0.5, 0.75, 1.0])] if values.size else []


def rounded(numbers: Any) -> list[float]:
    return [float(f"{float(number):.4g}") for number in numbers]


# ------------------------------------------------------------------- comparing


def differences(known: Any, drawn: Any) -> list[str]:
    """Return what is not as recorded: words exactly, numbers to the tolerance."""
    if known is None:
        return ["it is not recorded"]
    found = []
    if words(known["output"]) != words(drawn["output"]):
        found.append(f"it printed\n{drawn['output']}\nand not\n{known['output']}")
    if list(known["figures"]) != list(drawn["figures"]):
        found.append(f"it drew {list(drawn['figures'])}, not {list(known['figures'])}")
        return found
    for name, all_axes in known["figures"].items():
        anew = drawn["figures"][name]
        if len(all_axes) != len(anew):
            found.append(f"{name} has {len(anew)} axes, not {len(all_axes)}")
        for old, new in zip(all_axes, anew, strict=False):
            found += [f"{name}: {part}" for part in unlike(old, new)]
    return found


def unlike(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Return the parts in which one picture's axes differ."""
    found = [
        f"{part} is {new[part]}, not {old[part]}"
        for part in ("title", "labels", "legend")
        if words(str(old[part])) != words(str(new[part]))
    ]
    left, right, low, high = old["limits"]
    spans = [abs(right - left), abs(high - low)]
    for part in ("limits", "lines", "images"):
        if len(old[part]) != len(new[part]):
            found.append(f"there are {len(new[part])} {part}, not {len(old[part])}")
    pairs = [(old["limits"], new["limits"], [spans[0]] * 2 + [spans[1]] * 2)]
    pairs += [
        (one, other, spans * 3)
        for one, other in zip(old["lines"], new["lines"], strict=False)
    ]
    pairs += [
        (one, other, [max(map(abs, one), default=1.0)] * len(one))
        for one, other in zip(old["images"], new["images"], strict=False)
    ]
    for one, other, scale in pairs:
        if len(one) != len(other) or any(
            abs(a - b) > TOLERANCE * max(span, 1e-300)
            for a, b, span in zip(one, other, scale, strict=False)
        ):
            found.append(f"plotted are {other}, not {one}")
    return found


def words(text: str) -> str:
    """Return a text with every number masked, and no space that a number decides."""
    return re.sub(r"\s+", " ", re.sub(r"[-+]?\d[\d.,]*(?:e[-+]?\d+)?", "#", text))


if __name__ == "__main__":
    main()
