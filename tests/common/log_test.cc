#include "common/log.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <functional>
#include <string>
#include <vector>

namespace fathom {
namespace {

// What a child process writes to stderr.
std::vector<std::string> LinesOf(const std::function<void()>& work) {
  int ends[2];
  EXPECT_EQ(pipe(ends), 0);
  const pid_t child = fork();
  if (child == 0) {
    dup2(ends[1], STDERR_FILENO);
    close(ends[0]);
    work();
    LogFlush();
    _exit(0);
  }
  close(ends[1]);
  std::string text;
  char buffer[4096];
  for (ssize_t n; (n = read(ends[0], buffer, sizeof buffer)) > 0;) text.append(buffer, n);
  close(ends[0]);
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  std::vector<std::string> lines;
  for (size_t at = 0; at < text.size();) {
    const size_t end = text.find('\n', at);
    lines.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return lines;
}

TEST(Log, ARequestHasAFieldInJsonAndAWordInText) {
  const auto json = LinesOf([] {
    LogInit("router", "info", "json");
    LogRequest(LogLevel::kWarn, "re\"q", "it {}", "failed");
    LogInfo("plain");
  });
  ASSERT_EQ(json.size(), 2);
  EXPECT_NE(json[0].find(R"("level":"warning","role":"router","pid":)"), std::string::npos);
  EXPECT_TRUE(json[0].ends_with(R"(,"request_id":"re\"q","msg":"it failed"})")) << json[0];
  EXPECT_TRUE(json[1].ends_with(R"(,"msg":"plain"})")) << json[1];
  const auto text = LinesOf([] {
    LogInit("router", "info", "text");
    LogRequest(LogLevel::kWarn, "abc", "it {}", "failed");
  });
  ASSERT_EQ(text.size(), 1);
  EXPECT_TRUE(text[0].ends_with("router warning: request abc: it failed")) << text[0];
}

TEST(Log, ASignalChangesTheLevel) {
  const auto lines = LinesOf([] {
    LogInit("router", "warn", "text");
    LogInfo("one");
    raise(SIGUSR1);
    LogDebug("two");
    raise(SIGUSR2);
    LogInfo("three");
    LogWarn("four");
  });
  ASSERT_EQ(lines.size(), 2);
  EXPECT_TRUE(lines[0].ends_with("two"));
  EXPECT_TRUE(lines[1].ends_with("four"));
}

// One place that writes without end does not keep another one from writing.
TEST(Log, APlaceWritesABurstAndThenSaysWhatItLeftOut) {
  const auto lines = LinesOf([] {
    LogInit("router", "info", "text");
    for (int i = 0; i < 1000; ++i) LogInfo("again {}", i);
    LogInfo("another");
  });
  const auto again = std::count_if(lines.begin(), lines.end(), [](const std::string& line) {
    return line.find("again") != std::string::npos;
  });
  EXPECT_GE(again, static_cast<int>(kLogBurst));
  EXPECT_LT(again, 1000);
  EXPECT_TRUE(lines.back().ends_with("another"));
}

TEST(Log, LeftOutLinesAreCounted) {
  const auto place = std::source_location::current();
  std::string note;
  int written = 0, left_out = 0;
  while (log_internal::MayLog(place, &note)) ++written;
  EXPECT_GE(written, static_cast<int>(kLogBurst));
  EXPECT_EQ(note, "");
  for (++left_out; !log_internal::MayLog(place, &note);) ++left_out;  // Until the next line is due.
  EXPECT_EQ(note, fmt::format("({} lines of this kind were left out) ", left_out));
}

}  // namespace
}  // namespace fathom
