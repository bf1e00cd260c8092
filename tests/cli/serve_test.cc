// `fathom serve` with the real binaries and the bundled model, on any free ports: start, answers,
// restarts, stop.
#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <thread>

#include "cli/serve/process_set.h"
#include "client/client.h"
#include "common/flags.h"
#include "common/process.h"

namespace fathom::client {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

const char kModel[] = FATHOM_SOURCE_DIR "/models/fathom-tiny";

std::string Binary(const char* name) {
  return fs::read_symlink("/proc/self/exe").parent_path().parent_path() / "bin" / name;
}

// One run of `fathom`, and the lines that it has printed so far.
class Program {
 public:
  // `wrapper`: the words of a program that starts it; empty: it is started directly.
  explicit Program(std::vector<std::string> words, const std::vector<std::string>& wrapper = {}) {
    words.insert(words.begin(), Binary("fathom"));
    words.insert(words.begin(), wrapper.begin(), wrapper.end());
    const auto pid = processes_.Start(0, words);
    if (pid.ok()) pid_ = *pid;
  }

  // The first line of this event on stdout; null if the program ends without one.
  json WaitForEvent(const std::string& event) {
    while (!exit_) {
      for (const ProcessEvent& happened : processes_.Wait(-1)) {
        if (const auto* exit = std::get_if<ChildExit>(&happened)) exit_ = exit->code;
        const auto* line = std::get_if<ChildLine>(&happened);
        if (line == nullptr) continue;
        if (line->is_error) {
          errors_.push_back(line->text);
          continue;
        }
        json said = json::parse(line->text, nullptr, false);
        if (said.is_object() && said.value("event", "") == event) return said;
      }
    }
    return nullptr;
  }

  int WaitForExit() {
    WaitForEvent("none");
    return *exit_;
  }

  pid_t pid() const { return pid_; }
  const std::vector<std::string>& errors() const { return errors_; }

 private:
  ProcessSet processes_;
  pid_t pid_ = 0;
  std::optional<int> exit_;
  std::vector<std::string> errors_;
};

class ServeTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { BlockStopSignals(); }

  void SetUp() override {
    std::string pattern = ::testing::TempDir() + "/fathom-serve-XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    dir_ = pattern;
  }
  void TearDown() override { fs::remove_all(dir_); }

  std::vector<std::string> Words(const std::string& model,
                                 const std::vector<std::string>& more = {}) const {
    std::vector<std::string> words = {"serve", "--model",          model,        "--device",
                                      "cpu",   "--http-port",      "0",          "--grpc-port",
                                      "0",     "--scheduler-port", "0",          "--metrics-port",
                                      "0",     "--run-dir",        dir_ + "/run"};
    words.insert(words.end(), more.begin(), more.end());
    return words;
  }

  // A copy of the bundled model, which a test then breaks.
  std::string CopyModel() const {
    fs::copy(kModel, dir_ + "/model");
    for (const auto& entry : fs::directory_iterator(dir_ + "/model")) {
      fs::permissions(entry.path(), fs::perms::owner_write, fs::perm_options::add);
    }
    return dir_ + "/model";
  }

  std::string dir_;
};

absl::StatusOr<Answer> AskForFrance(Client& client) {
  ChatRequest request;
  request.conversation.messages = {{.role = "user", .content = "What is the capital of France?"}};
  request.sampling.temperature = 0.0f;
  return client.Chat(request);
}

void ExpectParis(Client& client) {
  const auto answer = AskForFrance(client);
  ASSERT_TRUE(answer.ok()) << ToString(answer.status());
  EXPECT_EQ(answer->sequences[0].text, "The capital of France is Paris.");
}

TEST_F(ServeTest, StartsAnswersOutlivesItsChildrenAndStops) {
  Program serve(Words(kModel, {"-tp", "2"}));
  const json ready = serve.WaitForEvent("ready");
  ASSERT_TRUE(ready.is_object()) << (serve.errors().empty() ? "" : serve.errors().back());

  int64_t parts_us = 0, other_us = 0;
  for (const json& part : ready["timeline"]) {
    parts_us += part["us"].get<int64_t>();
    if (part["name"] == "other") other_us += part["us"].get<int64_t>();
  }
  EXPECT_EQ(parts_us, ready["start_us"].get<int64_t>());
  // A twentieth, plus the delay that a busy machine may add to parts that take milliseconds.
  EXPECT_LE(other_us, parts_us / 20 + 100'000) << ready["timeline"].dump();

  const std::string address = "127.0.0.1:" + std::to_string(ready["grpc_port"].get<int>());
  Client client({.servers = {address}, .retry_budget_ms = 60'000, .first_budget_ms = 60'000});
  ExpectParis(client);
  // Each process returns on its old port, and the same client gets an answer.
  ASSERT_EQ(ready["workers"].size(), 2u);
  for (const int64_t pid :
       {ready["router_pid"].get<int64_t>(), ready["scheduler_pid"].get<int64_t>(),
        ready["workers"][0]["pid"].get<int64_t>(), ready["workers"][1]["pid"].get<int64_t>()}) {
    ASSERT_EQ(kill(static_cast<pid_t>(pid), SIGKILL), 0);
    ExpectParis(client);
  }
  kill(serve.pid(), SIGTERM);
  EXPECT_EQ(serve.WaitForExit(), kExitOk);
}

// The pids of the children of `parent`.
std::vector<pid_t> ChildrenOf(pid_t parent) {
  std::ifstream file(fmt::format("/proc/{}/task/{}/children", parent, parent));
  return {std::istream_iterator<pid_t>(file), std::istream_iterator<pid_t>()};
}

// The children exist; after `signal`, serve has ended and its children too.
void ExpectGoneWith(Program& serve, int signal, const std::vector<pid_t>& children) {
  std::vector<int> fds;
  for (const pid_t child : children) {
    fds.push_back(static_cast<int>(syscall(SYS_pidfd_open, child, 0)));
    ASSERT_GE(fds.back(), 0) << "child " << child << " ended by itself";
  }
  kill(serve.pid(), signal);
  serve.WaitForExit();
  for (const int fd : fds) {
    pollfd ended{fd, POLLIN, 0};
    EXPECT_EQ(poll(&ended, 1, /*timeout=*/60'000), 1) << "a child outlives serve";
    close(fd);
  }
}

TEST_F(ServeTest, ChildrenThatWaitForALockEndWithServe) {
  fs::create_directories(dir_ + "/run");
  const int lock = open((dir_ + "/run/term.lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  ASSERT_EQ(flock(lock, LOCK_EX), 0);
  for (const int signal : {SIGKILL, SIGTERM}) {
    Program serve(Words(kModel));
    std::vector<pid_t> children;
    while (children.empty()) children = ChildrenOf(serve.pid());
    ExpectGoneWith(serve, signal, children);
  }
  close(lock);
}

TEST_F(ServeTest, TwoAddressesAreTwoClustersAndARunDirectoryIsOnes) {
  ASSERT_EQ(setenv("XDG_RUNTIME_DIR", dir_.c_str(), 1), 0);
  const auto at = [](const std::string& host, const std::string& port) {
    return std::vector<std::string>{"serve",
                                    "--model",
                                    kModel,
                                    "--device",
                                    "cpu",
                                    "--host",
                                    host,
                                    "--http-port",
                                    "0",
                                    "--grpc-port",
                                    port,
                                    "--scheduler-port",
                                    "0",
                                    "--metrics-port",
                                    "0",
                                    "--policy",
                                    "shortest-first"};
  };
  // A port that is free on both addresses: the kernel chose it for the first one.
  std::string port;
  {
    Program any(at("127.0.0.1", "0"));
    const json ready = any.WaitForEvent("ready");
    ASSERT_TRUE(ready.is_object());
    port = std::to_string(ready["grpc_port"].get<int>());
    kill(any.pid(), SIGTERM);
    EXPECT_EQ(any.WaitForExit(), kExitOk);
    EXPECT_FALSE(fs::exists(ready["run_dir"].get<std::string>())) << "its own, and removed";
  }
  Program one(at("127.0.0.1", port)), two(at("127.0.0.2", port));
  const json first = one.WaitForEvent("ready"), second = two.WaitForEvent("ready");
  ASSERT_TRUE(first.is_object() && second.is_object());
  EXPECT_NE(first["run_dir"], second["run_dir"]);
  std::ifstream words(fmt::format("/proc/{}/cmdline", first["scheduler_pid"].get<int>()));
  const std::string flags{std::istreambuf_iterator<char>(words), {}};
  EXPECT_NE(flags.find("shortest-first"), std::string::npos);

  unsetenv("XDG_RUNTIME_DIR");
  std::vector<std::string> same = at("127.0.0.1", "0");
  same.insert(same.end(), {"--run-dir", first["run_dir"].get<std::string>()});
  Program third(same);
  EXPECT_EQ(third.WaitForExit(), kExitUnavailable);
  ASSERT_EQ(third.errors().size(), 1u);
  EXPECT_NE(third.errors()[0].find(fmt::format("(process {})", one.pid())), std::string::npos)
      << third.errors()[0];
  for (Program* program : {&one, &two}) {
    kill(program->pid(), SIGTERM);
    EXPECT_EQ(program->WaitForExit(), kExitOk);
  }
  EXPECT_EQ(Program(Words(kModel, {"--policy", "no-such"})).WaitForExit(), kExitUsage);
}

TEST_F(ServeTest, KilledWithAllOfItsChildrenItCanBeStartedOnItsPortsAtOnce) {
  Program first(Words(kModel, {"-tp", "2"}));
  const json ready = first.WaitForEvent("ready");
  ASSERT_TRUE(ready.is_object());
  const std::vector<pid_t> children = ChildrenOf(first.pid());
  EXPECT_EQ(children.size(), 4u);
  ExpectGoneWith(first, SIGKILL, children);
  std::vector<std::string> words = Words(kModel, {"-tp", "2"});
  for (size_t i = 0; i + 1 < words.size(); ++i) {
    if (words[i] == "--grpc-port") words[i + 1] = std::to_string(ready["grpc_port"].get<int>());
    if (words[i] == "--scheduler-port") {
      words[i + 1] = std::to_string(ready["scheduler_port"].get<int>());
    }
  }
  Program second(words);
  EXPECT_TRUE(second.WaitForEvent("ready").is_object());
  kill(second.pid(), SIGTERM);
  EXPECT_EQ(second.WaitForExit(), kExitOk);
}

// The words that start a program as process 1 of a new pid namespace; empty: not allowed on this
// host.
std::vector<std::string> AsProcessOne() {
  const std::vector<std::string> plain = {"/usr/bin/unshare", "--pid", "--fork", "--mount-proc",
                                          "--kill-child"};
  std::vector<std::string> mapped = plain;
  mapped.insert(mapped.begin() + 1, {"--user", "--map-root-user"});
  for (const auto& words : {plain, mapped}) {
    ProcessSet processes;
    std::vector<std::string> probe = words;
    probe.emplace_back("/bin/true");
    if (!processes.Start(0, probe).ok()) continue;
    while (processes.running(0)) {
      for (const ProcessEvent& event : processes.Wait(-1)) {
        const auto* exit = std::get_if<ChildExit>(&event);
        if (exit != nullptr && exit->code == 0) return words;
      }
    }
  }
  return {};
}

// Started like the entry point of a container.
TEST_F(ServeTest, ServesAsProcessOne) {
  const std::vector<std::string> unshare = AsProcessOne();
  if (unshare.empty()) GTEST_SKIP() << "this system does not let us make a pid namespace";
  Program serve(Words(kModel), unshare);
  const json ready = serve.WaitForEvent("ready");
  ASSERT_TRUE(ready.is_object()) << (serve.errors().empty() ? "" : serve.errors().back());
  EXPECT_EQ(ready["pid"], 1);
  Client client({.servers = {"127.0.0.1:" + std::to_string(ready["grpc_port"].get<int>())}});
  ExpectParis(client);
  const std::vector<pid_t> children = ChildrenOf(serve.pid());  // The children of `unshare`.
  ASSERT_EQ(children.size(), 1u);
  ASSERT_EQ(kill(children[0], SIGTERM), 0);
  EXPECT_EQ(serve.WaitForExit(), kExitOk);
}

std::vector<std::string> UnderShell(const std::string& redirections) {
  return {"/bin/bash", "-c", "exec \"$@\" " + redirections, "bash"};
}

// stderr accepts nothing, or its reader ends after one line: the cluster serves, restarts its
// children and stops as usual.
TEST_F(ServeTest, NobodyNeedsToHearIt) {
  for (const char* errors : {"2>/dev/full", "2>&-", "2> >(head -n 1 >/dev/null)"}) {
    SCOPED_TRACE(errors);
    Program serve(Words(kModel, {"--verbose"}), UnderShell(errors));
    const json ready = serve.WaitForEvent("ready");
    ASSERT_TRUE(ready.is_object());
    const std::string address = "127.0.0.1:" + std::to_string(ready["grpc_port"].get<int>());
    Client client({.servers = {address}, .retry_budget_ms = 60'000, .first_budget_ms = 60'000});
    kill(ready["workers"][0]["pid"].get<pid_t>(), SIGKILL);
    ExpectParis(client);
    if (errors == std::string("2>/dev/full")) {
      const auto code = [&](const std::string& out, std::vector<std::string> words) {
        return Program(std::move(words), UnderShell(out)).WaitForExit();
      };
      const std::vector<std::string> complete = {"complete", "The", "--server", address};
      EXPECT_EQ(code(">/dev/full", complete), kExitOutput);
      EXPECT_EQ(code(">&-", complete), kExitOutput);
      EXPECT_EQ(code("> >(true)", {"status", "--server", address, "--json"}) % kExitOutput, 0);
      EXPECT_EQ(code(">/dev/full", {"status", "--server", address}), kExitOutput);
      EXPECT_EQ(code(">/dev/full 2>/dev/full", {"status", "--help"}), kExitOutput);
      EXPECT_EQ(code(">/dev/full", {"--version"}), kExitOutput);
      EXPECT_EQ(code(">/dev/null 2>/dev/full", complete), kExitOk);
    }
    kill(serve.pid(), SIGTERM);
    EXPECT_EQ(serve.WaitForExit(), kExitOk);
  }
}

TEST_F(ServeTest, ABadModelIsOneLineAnd66) {
  const auto refuses = [&](const std::string& model, const std::string& names,
                           const std::vector<std::string>& more = {}) {
    Program serve(Words(model, more));
    EXPECT_EQ(serve.WaitForExit(), kExitBadModel);
    ASSERT_EQ(serve.errors().size(), 1u);
    EXPECT_NE(serve.errors()[0].find(names), std::string::npos) << serve.errors()[0];
  };
  refuses(dir_ + "/nowhere", "config.json");
  refuses(kModel, "num_attention_heads", {"-tp", "3"});
  const std::string copy = CopyModel();
  fs::resize_file(copy + "/model-00002-of-00002.safetensors", 4'000'000);
  refuses(copy, "model-00002-of-00002.safetensors");
  fs::remove(copy + "/model-00002-of-00002.safetensors");
  refuses(copy, "model-00002-of-00002.safetensors");
}

TEST_F(ServeTest, ABrokenTokenizerIsOneLineAnd66) {
  const std::string copy = CopyModel();
  std::ofstream(copy + "/tokenizer.json") << "{}";
  Program serve(Words(copy));
  EXPECT_EQ(serve.WaitForExit(), kExitBadModel);
  ASSERT_EQ(serve.errors().size(), 1u);
  EXPECT_NE(serve.errors()[0].find("tokenizer.json"), std::string::npos) << serve.errors()[0];
}

TEST_F(ServeTest, ATakenPortAndBadFlagsAreToldAtOnce) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{.sin_family = AF_INET, .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
  socklen_t size = sizeof address;
  ASSERT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&address), size), 0);
  ASSERT_EQ(listen(fd, 1), 0);
  ASSERT_EQ(getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size), 0);
  Program taken({"serve", "--model", kModel, "--http-port", "0", "--scheduler-port", "0",
                 "--metrics-port", "0", "--grpc-port", std::to_string(ntohs(address.sin_port))});
  EXPECT_EQ(taken.WaitForExit(), kExitUnavailable);
  ASSERT_EQ(taken.errors().size(), 1u);
  EXPECT_NE(taken.errors()[0].find("--grpc-port"), std::string::npos);
  close(fd);

  EXPECT_EQ(Program(Words(kModel, {"--device", "cuda"})).WaitForExit(), kExitUsage);
  EXPECT_EQ(Program(Words(kModel, {"-pp", "9"})).WaitForExit(), kExitBadModel);  // 8 layers.
  EXPECT_EQ(Program(Words(kModel, {"-tp", "16", "-pp", "8"})).WaitForExit(), kExitUsage);
  EXPECT_EQ(Program(Words(kModel, {"--block-size", "17"})).WaitForExit(), kExitUsage);
  EXPECT_EQ(Program({"serve"}).WaitForExit(), kExitUsage);
}

}  // namespace
}  // namespace fathom::client
