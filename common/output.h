// common/output.h: the only way by which a program writes to its stdout and stderr.
//
// A diagnostic (stderr: log lines, warnings, errors, progress) is for whoever looks on. One that
// cannot be written is dropped and counted, and the program goes on: a full disk, a closed stderr
// or a reader that went away never end a process. A diagnostic waits at most 100 ms for a reader
// that is slow, and not at all while the line before it was dropped.
//
// An answer (stdout of a command: tokens, a report, help) is what the program was called for. One
// that cannot be written is an error: EndAnswer says so and the program ends with 74.
//
// An announcement (stdout of a server: where it listens, how its start goes) is a diagnostic on
// stdout, since a server without a reader still serves.
//
// No call throws. Thread: any; answers come from one thread at a time. A diagnostic of more than
// 4 KiB may be cut apart by another thread's.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

namespace fathom {

// Call first in main. Opens /dev/null, the wrong way round, in place of a closed stdin, stdout or
// stderr: a file or socket that is opened later cannot take its number and be written to by
// mistake, and writing fails as it does on a closed descriptor. A reader that went away is an error
// of the write and no longer a signal (SIGPIPE).
void PrepareOutput();

// As it is: `text` has its own line end.
void WriteDiagnostic(std::string_view text);
// False: it was dropped or cut short.
bool WriteAnnouncement(std::string_view text);
// Counts what was dropped elsewhere, e.g. by the log's queue.
void CountDroppedDiagnostics(uint64_t lines);
// Diagnostics and announcements of this process that were dropped or cut short.
uint64_t DroppedDiagnostics();

// Buffered; after the first failure nothing more is written.
void WriteAnswer(std::string_view text);
// Hands to the system what was written so far. False: this answer cannot be written.
bool FlushAnswer();
// At the end of a command: `code`, or 74 instead of 0 when the answer could not be written. A line
// on stderr says why, but for a reader that went away on purpose (`fathom plan ... | head -n 1`).
int EndAnswer(std::string_view program, int code);

// A line each: the line end is added.
template <class... Args>
void Diagnose(fmt::format_string<Args...> text, Args&&... args) {
  WriteDiagnostic(fmt::format(text, std::forward<Args>(args)...) + '\n');
}
// As it is: no line end is added.
template <class... Args>
void PrintAnswer(fmt::format_string<Args...> text, Args&&... args) {
  WriteAnswer(fmt::format(text, std::forward<Args>(args)...));
}

}  // namespace fathom
