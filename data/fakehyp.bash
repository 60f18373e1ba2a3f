# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# bash completion of fakehypd and fakehypctl.  It offers what their --help lists, so it is as old as they are.

_fakehyp() {
    local program=$1 cur=$2 option=$3 command='' help line value=''
    local options=() choices=()

    # "--option=value" is three words to readline.
    if [[ $cur == '=' ]]; then
        cur=''
    elif [[ $option == '=' ]]; then
        option=${COMP_WORDS[COMP_CWORD - 2]}
    fi
    if [[ ${program##*/} == fakehypctl && $COMP_CWORD -gt 1 && ${COMP_WORDS[1]} != -* ]]; then
        command=${COMP_WORDS[1]}
    fi
    help=$("$program" ${command:+"$command"} --help 2>/dev/null) || return

    # "  -s, --socket PATH   text", "  --seccomp kill|log|none   text", and lists of commands as "  doctor   text".
    local with_option='^ +((-[A-Za-z]), )?(--[a-z-]+)( ([^ ]+))?( |$)' a_command='^  ([a-z-]+)  '
    while IFS= read -r line; do
        if [[ $line =~ $with_option ]]; then
            options+=("${BASH_REMATCH[3]}")
            if [[ $option == "${BASH_REMATCH[2]}" || $option == "${BASH_REMATCH[3]}" ]]; then
                value=${BASH_REMATCH[5]}
            fi
        elif [[ $line =~ $a_command ]]; then
            choices+=("${BASH_REMATCH[1]}")
        fi
    done <<<"$help"

    case $value in
    '')
        if [[ $cur != -* && $help == *'FILE|FOLDER...'* ]]; then
            compopt -o filenames 2>/dev/null
            mapfile -t COMPREPLY < <(compgen -f -- "$cur")
            return
        fi
        if [[ $cur == -* || ${#choices[@]} -eq 0 ]]; then
            choices=("${options[@]}")
        fi
        ;;
    PATH | FILE)
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -f -- "$cur")
        return
        ;;
    *'|'*) IFS='|' read -ra choices <<<"$value" ;;
    *) return ;; # a number
    esac
    mapfile -t COMPREPLY < <(compgen -W "${choices[*]}" -- "$cur")
}

complete -F _fakehyp fakehypd fakehypctl
