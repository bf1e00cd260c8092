// `fathom replay`: replaces itself by the program fathom-replay in the same folder, because the
// command line must not include a process, and the scheduler's core is part of one.
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "cli/commands.h"

namespace fathom::client {

int RunReplay(int argc, const char* const* argv) {
  const std::string program =
      std::filesystem::read_symlink("/proc/self/exe").parent_path() / "fathom-replay";
  std::vector<char*> words;
  // execv does not change its arguments.
  for (int i = 0; i < argc; ++i) words.push_back(const_cast<char*>(argv[i]));
  words.push_back(nullptr);
  execv(program.c_str(), words.data());
  return Fail("replay", FailedPrecondition("cannot start {}: {}; it belongs beside fathom", program,
                                           std::strerror(errno)));
}

}  // namespace fathom::client
