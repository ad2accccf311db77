"""The list of hostile behaviours that containment is tested against, line by line, and the tests that try each."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
E = "escapes/test_"
LINES = {
    # Crash and exit
    1: ("reads address 0 in native code", f"{E}segfault.py::test_read_of_address_zero_is_a_sigsegv_with_the_plugins_frame"),
    2: ("abort with core files off", f"{E}abort.py::test_abort_is_a_sigabrt",
         f"{E}abort.py::test_core_files_are_off_and_cannot_be_switched_on"),
    3: ("exits with 0 in mid-request", f"{E}exit.py::test_exit_in_a_request_is_a_crash_with_the_status"),
    4: ("dies while it is loaded, every time", f"{E}import_crash.py::test_death_at_import_is_the_crash_it_is_each_of_three_times"),
    5: ("corrupted bytecode", f"{E}recursion.py::test_corrupted_bytecode_is_a_signal_or_an_error"),
    6: ("nested parentheses for the parser", f"{E}recursion.py::test_nested_parentheses_for_the_parser_end_in_the_worker"),
    7: ("recursion without end", f"{E}recursion.py::test_recursion_through_c_overflows_the_workers_stack_only"),
    8: ("kills itself with SIGKILL", f"{E}kill_self.py::test_sigkill_of_self_is_external_and_not_memory"),
    9: ("giant or unprintable exception", f"{E}forged_frames.py::test_giant_exception_is_cut",
        f"{E}forged_frames.py::test_exception_whose_text_cannot_be_shown_is_an_error"),
    10: ("the process workers come from is killed ten times",
         f"{E}template_killed.py::test_ten_kills_of_the_template_cost_its_workers_only"),
    11: ("the first thread ends, others run", f"{E}endless.py::test_without_an_answer_the_deadline_ends_it"),
    # Time and hang
    12: ("while True", f"{E}endless.py::test_burning_cpu_is_ended_by_the_cpu_limit"),
    13: ("sleeps past the wall", f"{E}endless.py::test_sleeping_past_the_wall_limit_is_a_deadline_and_not_cpu"),
    14: ("ignores every signal", f"{E}endless.py::test_burning_cpu_is_ended_by_the_cpu_limit"),
    15: ("SIGSTOP, of itself and from outside", f"{E}endless.py::test_without_an_answer_the_deadline_ends_it",
         "sandbox/test_host_hygiene.py::test_worker_or_supervisor_stopped_from_outside_ends_at_the_deadline"),
    16: ("deadlock holding the answer's lock", f"{E}supervisor_flood.py::test_answer_behind_a_held_lock_is_a_deadline"),
    17: ("regular expression that holds the interpreter", f"{E}endless.py::test_burning_cpu_is_ended_by_the_cpu_limit"),
    18: ("flood of events for the supervisor",
         f"{E}supervisor_flood.py::test_flood_of_calls_for_the_supervisor_ends_at_the_deadline"),
    19: ("POSIX timer storm", f"{E}denied_calls.py::test_call_ends_the_worker_and_is_named"),
    20: ("FIFO as input", f"{E}writing.py::test_fifo_cannot_be_made",
         "host/test_effects_files.py::test_fifo_is_refused_without_blocking_and_without_waking_its_writer",
         "host/test_bad_input.py::test_plugin_that_is_a_pipe_is_refused_and_does_not_block"),
    # Memory
    21: ("bytearray beyond the limit", f"{E}memory.py::test_private_memory_over_the_limit_is_out_of_memory"),
    22: ("children together above the limit", f"{E}tree_memory.py::test_children_together_above_the_limit_are_killed",
         f"{E}tree_memory.py::test_without_a_memory_cgroup_each_process_has_the_limit"),
    23: ("mappings, segments, memory files", f"{E}memory.py::test_private_mapping_over_the_limit_is_killed_or_refused",
         f"{E}memory.py::test_memory_files_over_the_limit_are_refused_or_counted",
         f"{E}tree_memory.py::test_system_v_segment_is_not_there"),
    24: ("fills the private folder", f"{E}writing.py::test_filling_the_scratch_folder_ends_at_its_size"),
    25: ("reads random bytes without end", f"{E}limits_off.py::test_random_bytes_without_end_are_ended_by_the_cpu_limit"),
    26: ("decompression bombs", f"{E}picture_bombs.py::test_bomb_is_a_typed_error_or_out_of_memory",
         f"{E}memory.py::test_private_memory_over_the_limit_is_out_of_memory"),
    27: ("result ten times the cap", f"{E}forged_frames.py::test_result_over_the_limit_is_an_error_that_names_the_limit",
         f"{E}forged_frames.py::test_result_over_the_limit_that_is_sent_all_the_same_is_a_protocol_violation"),
    # Processes
    28: ("fork bomb", f"{E}fork_bomb.py::test_fork_bomb_hits_the_task_limit"),
    29: ("daemon by setsid and two forks", f"{E}fork_bomb.py::test_daemon_that_forked_twice_is_gone_with_the_worker"),
    30: ("orphans after the worker's end", f"{E}orphans.py::test_children_of_a_worker_that_went_are_gone_with_it"),
    31: ("clone(CLONE_UNTRACED)", f"{E}denied_calls.py::test_clone_with_a_forbidden_flag_is_refused_even_where_fork_is_granted"),
    32: ("new user namespace", f"{E}denied_calls.py::test_call_ends_the_worker_and_is_named",
         f"{E}denied_calls.py::test_clone_flag_hidden_behind_high_bits_is_refused"),
    33: ("another program, from memory, a second time",
         f"{E}denied_calls.py::test_running_another_program_is_denied_by_every_policy",
         f"{E}exec_again.py::test_child_that_becomes_a_program_ends_the_worker"),
    34: ("pty.spawn, sudo, setuid(0)", f"{E}denied_calls.py::test_subprocess_and_terminal_start_nothing",
         f"{E}exec_again.py::test_becoming_another_user_is_refused"),
    35: ("signals to parent and sibling", f"{E}other_processes.py::test_signal_to_others_is_refused",
         f"{E}exec_again.py::test_process_of_the_host_is_not_reached_by_any_call_that_signals"),
    36: ("ptrace, process_vm_readv, /proc/PID/mem", f"{E}denied_calls.py::test_call_ends_the_worker_and_is_named",
         f"{E}other_processes.py::test_no_process_can_be_looked_at"),
    37: ("dies just before it is killed", f"{E}orphans.py::test_host_signals_no_bare_process_id"),
    38: ("the host dies by SIGKILL", "sandbox/test_host_hygiene.py::test_no_worker_lives_a_second_after_its_host_was_killed"),
    39: ("the thread that started it ends", "sandbox/test_host_hygiene.py::test_worker_outlives_the_thread_that_started_it"),
    # Syscall surface
    40: ("32-bit calls", f"{E}lockdown_toggles.py::test_file_is_not_read_by_calls_of_another_architecture",
         "sandbox/test_filter.py::test_foreign_call_made_by_machine_code_ends_the_worker"),
    41: ("x32 numbers", f"{E}lockdown_toggles.py::test_file_is_not_read_by_calls_of_another_architecture",
         "sandbox/test_filter.py::test_every_x32_number_kills_the_process"),
    42: ("bpf, userfaultfd, io_uring, perf, keys", f"{E}denied_calls.py::test_call_ends_the_worker_and_is_named",
         f"{E}denied_calls.py::test_call_that_libraries_probe_is_refused"),
    43: ("personality, writable code", f"{E}denied_calls.py::test_call_ends_the_worker_and_is_named",
         "sandbox/test_filter.py::test_written_memory_is_not_executed_in_strict_and_is_where_nothing_stops_it"),
    44: ("a seccomp listener of its own", f"{E}denied_calls.py::test_call_ends_the_worker_and_is_named"),
    45: ("TIOCSTI in every disguise", f"{E}terminal.py::test_ioctl_is_answered_as_on_something_that_is_no_terminal"),
    46: ("clone3", f"{E}denied_calls.py::test_call_that_libraries_probe_is_refused",
         f"{E}fork_bomb.py::test_threads_end_at_the_limit"),
    47: ("what a new C library calls", f"{E}lockdown_toggles.py::test_threads_random_and_rseq_work"),
    48: ("mounting, old and new calls", f"{E}denied_calls.py::test_call_ends_the_worker_and_is_named"),
    49: ("device nodes", f"{E}writing.py::test_device_cannot_be_made"),
    50: ("taking prctl's settings back", f"{E}lockdown_toggles.py::test_prctl_changes_nothing"),
    # Filesystem
    51: ("shadow, keys, environments", f"{E}host_files.py::test_paths_of_the_host_do_not_exist"),
    52: ("writes to read-only places", f"{E}writing.py::test_nothing_can_be_planted_anywhere"),
    53: ("links, renames, openat2, O_PATH", f"{E}denied_paths.py::test_file_beside_a_granted_folder_is_not_reached",
         f"{E}host_files.py::test_openat2_is_not_there"),
    54: ("creates a name that was missing", f"{E}writing.py::test_nothing_can_be_planted_anywhere"),
    55: ("plants .bashrc, .pth, sitecustomize", f"{E}writing.py::test_nothing_can_be_planted_anywhere"),
    56: ("odd names, links, depths, sizes", f"{E}scratch_tricks.py::test_odd_names_are_the_workers_own_matter",
         f"{E}scratch_tricks.py::test_deep_folders_end_with_the_worker_and_do_not_hold_up_the_next",
         f"{E}scratch_tricks.py::test_sparse_file_of_a_pebibyte_is_over_the_limit_of_a_file"),
    57: ("a link swapped in between check and open",
         "host/test_effects_files.py::test_symbolic_link_swapped_in_between_look_and_open_is_not_followed"),
    58: ("many small files", f"{E}writing.py::test_many_small_files_end_at_the_number_of_files"),
    59: ("kcore, parents in /proc, sysrq", f"{E}denied_paths.py::test_files_of_the_kernel_are_not_written_under_any_spelling",
         f"{E}denied_paths.py::test_proc_of_parents_is_not_there"),
    60: ("NUL in a path", f"{E}host_files.py::test_nul_byte_in_a_path_is_an_error_of_the_plugin",
         f"{E}denied_paths.py::test_nul_bytes_in_paths_and_mounts_are_clean_errors"),
    61: ("a file left by the worker before", f"{E}writing.py::test_file_left_by_one_worker_is_not_there_for_the_next"),
    # Network
    62: ("TCP by name, v4, v6, mapped", f"{E}network_ways.py::test_tcp_reaches_nobody",
         f"{E}sockets.py::test_a_listener_of_the_host_is_reached_only_without_containment"),
    63: ("UDP and DNS", f"{E}network_ways.py::test_udp_reaches_nobody",
         f"{E}network_ways.py::test_question_to_a_name_server_reaches_nobody"),
    64: ("raw, packet, netlink, vsock, SCTP, MPTCP", f"{E}sockets.py::test_socket_is_refused",
         f"{E}sockets.py::test_protocols_that_rules_for_tcp_forget_are_refused"),
    65: ("named and abstract unix sockets", f"{E}sockets.py::test_unix_socket_of_the_host_is_not_reached_by_the_ends_of_a_pair",
         f"{E}network_ways.py::test_many_messages_with_addresses_in_one_call_reach_nobody"),
    66: ("listens; shells, curl, proxies", f"{E}network_ways.py::test_listening_is_refused",
         f"{E}network_ways.py::test_programs_that_connect_are_not_started",
         f"{E}network_ways.py::test_request_without_proxy_variables_reaches_nobody"),
    69: ("sendto with a huge address", f"{E}network_ways.py::test_send_with_an_address_of_any_length_is_refused"),
    # IPC and effects
    70: ("frames that are none", f"{E}forged_frames.py::test_bytes_that_are_no_message_are_a_protocol_violation",
         f"{E}forged_frames.py::test_half_a_frame_and_then_silence_is_a_deadline"),
    71: ("pointers that lead astray", "sandbox/test_wire.py::test_pointers_that_lead_astray_are_a_wire_error_or_an_empty_value"),
    72: ("descriptors nobody asked for", f"{E}forged_frames.py::test_descriptors_pushed_to_the_host_are_closed"),
    73: ("effects that are not granted",
         f"{E}forged_frames.py::test_effect_that_is_not_granted_under_any_spelling_is_not_performed"),
    74: ("forged answers", f"{E}forged_frames.py::test_message_out_of_turn_is_a_protocol_violation"),
    75: ("effects without reading answers", f"{E}forged_frames.py::test_effects_whose_answers_nobody_reads_end_in_time"),
    76: ("frames printed", f"{E}forged_frames.py::test_printed_bytes_that_look_like_frames_are_only_text"),
    79: ("the state of another session", f"{E}plugin_state.py::test_state_of_another_plugin_is_not_reached_by_any_key",
         f"{E}forged_frames.py::test_message_out_of_turn_is_a_protocol_violation"),
    # Output and environment
    80: ("floods stdout", f"{E}output.py::test_output_without_end_is_ended_by_the_output_limit"),
    81: ("escape sequences, surrogates", f"{E}output.py::test_escape_sequences_are_shown_as_text"),
    82: ("environment and descriptors", f"{E}environment.py::test_secret_in_the_hosts_environment_is_not_in_the_workers",
         f"{E}environment.py::test_descriptors_of_the_host_are_not_there"),
    83: ("clears the environment, becomes a program", f"{E}exec_again.py::test_child_that_becomes_a_program_ends_the_worker"),
    84: ("limits that are none", f"{E}limits_off.py::test_limit_that_is_no_limit_is_refused"),
    # Platform
    85: ("a layer is missing", "host/test_bad_input.py::test_machine_without_a_required_layer_is_refused_with_layer_cause_and_fix",
         "sandbox/test_plan.py::test_missing_layer_is_refused_with_layer_cause_and_fix"),
    86: ("a host with threads or asyncio",
         "sandbox/test_host_hygiene.py::test_workers_start_and_answer_while_many_threads_start_others",
         "sandbox/test_host_hygiene.py::test_workers_start_under_a_running_asyncio_loop_with_threads"),
    87: ("as root, as a user, in a container",
         "sandbox/test_probe.py::test_workers_of_root_have_a_user_of_their_own_and_others_their_own",
         "sandbox/test_probe.py::test_user_namespaces_switched_off_refuse_every_worker_with_the_fix",
         "sandbox/test_tiers.py::test_full_is_refused_by_the_trial_of_the_whole_sequence",
         "sandbox/test_tiers.py::test_attacks_fail_in_unprivileged_as_they_do_in_full",
         "sandbox/test_tiers.py::test_unprivileged_is_refused_to_root_for_what_its_workers_could_not_read"),
}  # fmt: skip
REQUIRED = (*range(1, 67), *range(80, 88))


def test_every_line_has_a_test():
    assert sorted(set(REQUIRED) - set(LINES)) == []
    for what, *tests in LINES.values():
        assert what
        assert tests


@pytest.mark.parametrize("line", LINES)
def test_tests_of_this_line_exist(line):
    for name in LINES[line][1:]:
        path, _, function = name.partition("::")
        text = (ROOT / "tests" / path).read_text()
        assert re.search(rf"^def {function}\(", text, re.MULTILINE), name
