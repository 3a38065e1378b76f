"""Where the C++ library inside an installed package is."""

from __future__ import annotations

from pathlib import Path


def cmake_dir() -> str:
    """Folder with `opsinConfig.cmake`, to be given to CMake as `opsin_DIR`.

    Raises:
        FileNotFoundError: The package runs from a build tree, which has no installed C++ library.
    """
    folder = Path(__file__).parent / "lib" / "cmake" / "opsin"
    if not (folder / "opsinConfig.cmake").is_file():
        raise FileNotFoundError(
            f"cmake_dir: expected an installed opsin package, found no {folder / 'opsinConfig.cmake'} "
            "(install the wheel, or install the library with `cmake --install`)"
        )
    return str(folder)
