"""What `fuse-ask --completion SHELL` prints: one script that makes a shell complete every tool of the suite.

The script asks the tool itself, by click's protocol (`_FUSE_PANEL_COMPLETE=bash_complete fuse-panel`), so that a new
option needs no new script. click's own scripts are one per tool, and in bash they lose names that stand beside files.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable

from fusiontools.errors import __version__

# bash splits `--option=value` at the `=`, and may be so old (3.2 on macOS) that it has neither ${x^^} nor compopt.
_BASH = r"""_fuse_complete() {
    local IFS=$'\n' variable words=() kind value word i
    variable="_$(printf %s "${1##*/}" | tr a-z- A-Z_)_COMPLETE"
    for ((i = 0; i <= COMP_CWORD; i++)); do
        [[ "${COMP_WORDS[i]}" == "=" && $i -gt 0 ]] || words+=("${COMP_WORDS[i]}")
    done
    word=$2
    [[ "$word" == "=" ]] && word= && words+=("")
    COMPREPLY=()
    while IFS=, read -r kind value; do
        case $kind in
            plain) COMPREPLY+=("$value") ;;
            file)
                while IFS= read -r value; do COMPREPLY+=("$value"); done < <(compgen -f -- "$word")
                compopt -o filenames 2>/dev/null
                ;;
        esac
    done < <(env COMP_WORDS="${words[*]}" COMP_CWORD="$((${#words[@]} - 1))" "$variable=bash_complete" "$1")
}
complete -F _fuse_complete @TOOLS@
"""
_ZSH = r"""#compdef @TOOLS@
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit; }
_fuse_complete() {
    local variable="_${${(U)words[1]:t}//-/_}_COMPLETE" type key about
    local -a plain described response
    response=("${(@f)$(env COMP_WORDS="${words[*]}" COMP_CWORD=$((CURRENT - 1)) $variable=zsh_complete $words[1])}")
    for type key about in $response; do
        case $type in
            plain) [[ $about == _ ]] && plain+=("$key") || described+=("$key:$about") ;;
            file) _path_files -f ;;
        esac
    done
    [[ -n $described ]] && _describe -V options described
    [[ -n $plain ]] && compadd -V values -a plain
}
compdef _fuse_complete @TOOLS@
"""
_FISH = r"""function _fuse_complete
    set -l words (commandline -opc)
    set -l variable _(string upper (string replace -a - _ (basename $words[1])))_COMPLETE
    for line in (env $variable=fish_complete COMP_WORDS=(commandline -cp) COMP_CWORD=(commandline -t) $words[1])
        set -l parts (string split -m 1 , $line)
        switch $parts[1]
            case plain
                echo $parts[2]
            case file
                __fish_complete_path (commandline -t)
        end
    end
end
for tool in @TOOLS@
    complete --no-files --command $tool --arguments '(_fuse_complete)'
end
"""
_SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}
SHELLS = tuple(_SCRIPTS)


def print_script(shell: str) -> None:
    """Print what a shell evaluates to complete all tools; it is no error that nobody reads it."""
    script = _SCRIPTS[shell].replace("@TOOLS@", " ".join(tool_names(sys.path)))
    try:
        os.write(1, script.encode())
    except BrokenPipeError:
        return


def tool_names(folders: Iterable[str]) -> list[str]:
    """Return the tools of this installation, as its metadata list them.

    A shell waits for this each time it starts: `importlib.metadata`, which reads the same file, takes longer than all
    else, and is asked only where the file is not where it should be.

    Args:
        folders: where packages are installed.
    """
    for folder in folders:
        path = os.path.join(folder, f"fusiontools-{__version__}.dist-info", "entry_points.txt")  # noqa: PTH118
        try:
            with open(path, encoding="utf-8") as file:  # noqa: PTH123
                _, _, listed = file.read().partition("[console_scripts]\n")
        except OSError:
            continue
        return [line.split(" = ")[0] for line in listed.partition("[")[0].splitlines() if " = " in line]
    from importlib.metadata import distribution

    return [entry.name for entry in distribution("fusiontools").entry_points if entry.group == "console_scripts"]
