// Output when it cannot be written: full devices, closed descriptors, readers that left or do not
// read. Each case runs in a process of its own, because it breaks its stdout or stderr.
#include "common/output.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <limits.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <string>

#include "common/exit_codes.h"
#include "common/log.h"

namespace fathom {
namespace {

// The result of `work` in a child process; -1 if a signal ended it.
int InChild(const std::function<int()>& work) {
  const pid_t pid = fork();
  if (pid == 0) _exit(work());
  int state = 0;
  EXPECT_EQ(waitpid(pid, &state, 0), pid);
  return WIFEXITED(state) ? WEXITSTATUS(state) : -1;
}

void Redirect(int fd, const char* path) {
  const int file = open(path, O_WRONLY | O_CLOEXEC);
  dup2(file, fd);
  close(file);
}

// Makes `fd` the write end of a pipe; returns the read end, which does not block.
int ToPipe(int fd) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) _exit(99);
  dup2(ends[1], fd);
  close(ends[1]);
  fcntl(ends[0], F_SETFL, O_NONBLOCK);
  return ends[0];
}

std::string Drain(int fd) {
  std::string all(1 << 20, '\0');
  const ssize_t size = read(fd, all.data(), all.size());
  all.resize(size > 0 ? static_cast<size_t>(size) : 0);
  return all;
}

TEST(Output, DiagnosticsToAFullDeviceAreDroppedAndCounted) {
  EXPECT_EQ(InChild([] {
              PrepareOutput();
              Redirect(STDERR_FILENO, "/dev/full");
              Redirect(STDOUT_FILENO, "/dev/full");
              for (int i = 0; i < 3; ++i) Diagnose("line {}", i);
              const bool announced = WriteAnnouncement("{}\n");
              return announced ? 50 : static_cast<int>(DroppedDiagnostics());
            }),
            4);
}

TEST(Output, AReaderThatLeftIsNoSignal) {
  EXPECT_EQ(InChild([] {
              PrepareOutput();
              close(ToPipe(STDERR_FILENO));
              Diagnose("a line");
              Diagnose("another");
              return static_cast<int>(DroppedDiagnostics());
            }),
            2);
}

TEST(Output, AFileNeverTakesTheNumberOfAClosedStream) {
  const std::string path = testing::TempDir() + "/output_test.file";
  EXPECT_EQ(InChild([&] {
              for (int fd = 0; fd <= 2; ++fd) close(fd);
              PrepareOutput();
              const int file = open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
              Diagnose("not for the file");
              WriteAnswer("nor this");
              const int code = EndAnswer("test", kExitOk);
              char byte = 0;
              if (read(STDIN_FILENO, &byte, 1) != -1) return 1;
              if (file <= STDERR_FILENO || lseek(file, 0, SEEK_END) != 0) return 2;
              // Counted are the line above and the line of EndAnswer.
              return code == kExitOutput && DroppedDiagnostics() == 2 ? 0 : 3;
            }),
            0);
  unlink(path.c_str());
}

TEST(Output, ASlowReaderGetsWholeLinesAgain) {
  EXPECT_EQ(InChild([] {
              PrepareOutput();
              const int reader = ToPipe(STDERR_FILENO);
              const int room = fcntl(reader, F_GETPIPE_SZ);
              // Fills the pipe up to one page, then writes a line of three pages, of which the
              // first fits.
              WriteDiagnostic(std::string(room - PIPE_BUF, 'x'));
              WriteDiagnostic(std::string(3 * PIPE_BUF, 'y') + "\n");
              Diagnose("dropped");
              if (DroppedDiagnostics() != 2) return 1;
              if (Drain(reader).find("yyy") == std::string::npos) return 2;
              Diagnose("heard");
              if (Drain(reader) != "\nheard\n") return 3;
              return DroppedDiagnostics() == 2 ? 0 : 4;
            }),
            0);
}

TEST(Output, AnAnswerThatCannotBeWrittenIsAnError) {
  const auto code = [](const char* out, int ended) {
    return InChild([=] {
      PrepareOutput();
      Redirect(STDERR_FILENO, "/dev/null");
      Redirect(STDOUT_FILENO, out);
      PrintAnswer("{} and more\n", 1);
      const bool flushed = FlushAnswer();
      WriteAnswer("the rest");
      const int end = EndAnswer("test", ended);
      return flushed == (end == ended) || ended != kExitOk ? end : 99;
    });
  };
  EXPECT_EQ(code("/dev/full", kExitOk), kExitOutput);
  EXPECT_EQ(code("/dev/full", kExitUnavailable), kExitUnavailable) << "the first error is told";
  EXPECT_EQ(code("/dev/null", kExitOk), kExitOk);
}

TEST(Output, AReaderOfTheAnswerThatLeftIsNotScolded) {
  EXPECT_EQ(InChild([] {
              PrepareOutput();
              const int errors = ToPipe(STDERR_FILENO);
              close(ToPipe(STDOUT_FILENO));
              WriteAnswer("seen enough\n");
              const int code = EndAnswer("test", kExitOk);
              return Drain(errors).empty() ? code : 1;
            }),
            kExitOutput);
}

TEST(Output, LogLinesAreDiagnostics) {
  EXPECT_EQ(InChild([] {
              PrepareOutput();
              Redirect(STDERR_FILENO, "/dev/full");
              LogInfo("before the log is there");
              LogInit("test", "info");
              for (int i = 0; i < 10; ++i) LogInfo("line {}", i);
              LogFlush();
              return static_cast<int>(DroppedDiagnostics());
            }),
            11);
}

}  // namespace
}  // namespace fathom
