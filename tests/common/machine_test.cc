// What tells machines and their /dev/shm apart, and the age of a process.
#include "common/machine.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>

namespace fathom {
namespace {

// What `text` returns in another process of this machine.
template <class Text>
std::string InAnotherProcess(Text text) {
  int ends[2];
  EXPECT_EQ(pipe(ends), 0);
  const pid_t child = fork();
  if (child == 0) {
    const std::string mine = text();
    _exit(write(ends[1], mine.data(), mine.size()) == static_cast<ssize_t>(mine.size()) ? 0 : 1);
  }
  close(ends[1]);
  char buffer[512];
  const ssize_t size = read(ends[0], buffer, sizeof buffer);
  close(ends[0]);
  EXPECT_EQ(waitpid(child, nullptr, 0), child);
  return {buffer, static_cast<size_t>(size > 0 ? size : 0)};
}

TEST(Machine, ProcessesOfOneMachineAgree) {
  EXPECT_EQ(MachineId().size(), 36u);  // A UUID, without the newline.
  EXPECT_EQ(InAnotherProcess([] { return MachineId(); }), MachineId());
  EXPECT_FALSE(SharedMemoryId().empty());
  EXPECT_EQ(InAnotherProcess([] { return SharedMemoryId(); }), SharedMemoryId());
  EXPECT_FALSE(HostName().empty());
}

TEST(Machine, TheAgeOfAProcessGrowsFromItsStart) {
  const int64_t age_us = ProcessAgeUs();
  EXPECT_GE(age_us, 0);
  int64_t later_us = age_us;
  for (int i = 0; i < 100'000 && later_us <= age_us; ++i) later_us = ProcessAgeUs();
  EXPECT_GT(later_us, age_us);
  const std::string younger = InAnotherProcess([] { return std::to_string(ProcessAgeUs()); });
  EXPECT_LT(std::stoll(younger), ProcessAgeUs());
}

}  // namespace
}  // namespace fathom
