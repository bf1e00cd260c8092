#include <dirent.h>
#include <fmt/format.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>

#include "cli/doctor/gather.h"
#include "common/listener.h"

namespace fathom::client {
namespace {

namespace fs = std::filesystem;

constexpr size_t kProcessesMax = 20'000;
constexpr char kListening[] = "0A";  // TCP_LISTEN in /proc/net/tcp.

// The inodes of the listening sockets of each port: "sl local_address rem_address st ... inode".
std::map<int32_t, std::vector<std::string>> ListeningInodes() {
  std::map<int32_t, std::vector<std::string>> found;
  for (const char* const path : {"/proc/net/tcp", "/proc/net/tcp6"}) {
    std::ifstream file(path);
    for (std::string line; std::getline(file, line);) {
      std::istringstream fields(line);
      std::string slot, local, remote, state, word, inode;
      fields >> slot >> local >> remote >> state;
      for (int i = 0; i < 5; ++i) fields >> word;
      fields >> inode;
      const size_t colon = local.rfind(':');
      if (state != kListening || colon == std::string::npos) continue;
      found[static_cast<int32_t>(std::stol(local.substr(colon + 1), nullptr, 16))].push_back(inode);
    }
  }
  return found;
}

// The process that has one of the sockets open; only processes of this user can be looked into.
void FindHolder(const std::vector<std::string>& inodes, PortFacts* port) {
  std::error_code ignored;
  size_t processes = 0;
  for (const auto& process : fs::directory_iterator("/proc", ignored)) {
    const std::string pid = process.path().filename();
    if (pid[0] < '0' || pid[0] > '9' || ++processes > kProcessesMax) continue;
    std::error_code error;  // A process that ends, or another user's.
    for (auto fd = fs::directory_iterator(process.path() / "fd", error);
         !error && fd != fs::directory_iterator(); fd.increment(error)) {
      std::error_code gone;
      const std::string target = fs::read_symlink(fd->path(), gone);
      for (const std::string& inode : inodes) {
        if (target != "socket:[" + inode + "]") continue;
        port->holder_pid = std::stoi(pid);
        std::ifstream name(process.path() / "comm");
        std::getline(name, port->holder);
        return;
      }
    }
  }
}

}  // namespace

std::vector<PortFacts> GatherPorts(const std::string& host, const std::vector<WantedPort>& wanted) {
  std::vector<PortFacts> ports;
  std::map<int32_t, std::vector<std::string>> listening;
  for (const WantedPort& one : wanted) {
    if (one.port == 0) continue;
    PortFacts port{.port = one.port, .flag = one.flag};
    const auto bound = Listener::Bind(host, one.port, one.flag);
    if (!bound.ok()) {
      port.error = std::string(Message(bound.status()));
      port.taken = absl::IsUnavailable(bound.status());
      if (listening.empty()) listening = ListeningInodes();
      if (port.taken) FindHolder(listening[one.port], &port);
    }
    ports.push_back(std::move(port));
  }
  return ports;
}

}  // namespace fathom::client
