// common/output.h: the only code that writes to a program's stdout and stderr.
//
// A diagnostic (stderr: log lines, warnings, errors, progress) informs a person. If it cannot be
// written, it is dropped and counted, and the program continues: a full disk, a closed stderr or a
// reader that went away never ends a process. A diagnostic waits at most 100 ms for a slow reader,
// and not at all while the line before it was dropped.
//
// An answer (stdout of a command: tokens, a report, help) is the purpose of the program. If it
// cannot be written, EndAnswer reports an error and the program ends with 74.
//
// An announcement (stdout of a server: where it listens, the progress of its start) is a diagnostic
// on stdout, because a server without a reader still serves.
//
// No call throws. Thread: any; answers come from one thread at a time. A diagnostic of more than 4
// KiB may be interrupted by another thread's.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

namespace fathom {

// Must be the first call in main. Opens /dev/null with the wrong access mode in place of a closed
// stdin, stdout or stderr. Otherwise a file or socket that is opened later would get the number and
// be written to by mistake; with the wrong mode, writing still fails as on a closed descriptor.
// Also ignores SIGPIPE: if the reader went away, the write returns an error.
void PrepareOutput();

// Writes `text` unchanged; the caller adds the line end.
void WriteDiagnostic(std::string_view text);
// Returns false if the text was dropped or cut short.
bool WriteAnnouncement(std::string_view text);
// Adds lines that were dropped elsewhere, e.g. by the log's queue.
void CountDroppedDiagnostics(uint64_t lines);
// The number of diagnostics and announcements of this process that were dropped or cut short.
uint64_t DroppedDiagnostics();

// Buffered. After the first failure nothing more is written.
void WriteAnswer(std::string_view text);
// Writes the buffer. Returns false if the answer cannot be written.
bool FlushAnswer();
// Called at the end of a command. Returns `code`, or 74 instead of 0 if the answer could not be
// written. A line on stderr gives the reason, except if the reader closed the pipe on purpose
// (`fathom plan ... | head -n 1`).
int EndAnswer(std::string_view program, int code);

// Writes one line; the line end is added.
template <class... Args>
void Diagnose(fmt::format_string<Args...> text, Args&&... args) {
  WriteDiagnostic(fmt::format(text, std::forward<Args>(args)...) + '\n');
}
// Writes the text unchanged; no line end is added.
template <class... Args>
void PrintAnswer(fmt::format_string<Args...> text, Args&&... args) {
  WriteAnswer(fmt::format(text, std::forward<Args>(args)...));
}

}  // namespace fathom
