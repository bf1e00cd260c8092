#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <thread>

#include "client/commands.h"
#include "client/golden.h"
#include "client/verify_rules.h"

namespace fathom::client {
namespace {

constexpr int64_t kGoldenBytesMax = 256 << 20;

struct Case {
  std::string file;
  Golden golden;
  absl::Status status;  // Of the calls.
  Comparison comparison;
  bool exact() const { return status.ok() && comparison.differences.empty(); }
};

absl::StatusOr<Answer> Ask(Client& client, const Golden& golden, const RequestOptions& options) {
  if (golden.conversation) {
    ChatRequest request{options, *golden.conversation};
    return client.Chat(request);
  }
  GenerateRequest request{options, golden.prompt_ids};
  if (golden.prompt) request.prompt = *golden.prompt;
  return client.Generate(request);
}

absl::Status ReplayCase(Client& client, const Model& model, Case* one) {
  const Golden& golden = one->golden;
  Replay replay;
  if (golden.conversation) {
    FATHOM_ASSIGN_OR_RETURN(replay.tokenized, client.Tokenize(*golden.conversation));
  } else if (golden.prompt) {
    FATHOM_ASSIGN_OR_RETURN(replay.tokenized,
                            client.Tokenize(*golden.prompt, /*add_special_tokens=*/true));
  }
  if (golden.text && model.has_tokenizer) {
    FATHOM_ASSIGN_OR_RETURN(replay.decoded,
                            client.Detokenize(golden.output_ids, /*skip_special=*/true));
  }
  FATHOM_ASSIGN_OR_RETURN(replay.answer,
                          Ask(client, golden, ReplayOptions(golden, model.end_token_ids)));
  one->comparison = CompareCpu(golden, replay);
  return absl::OkStatus();
}

// All cases, `concurrency` at a time.
void ReplayAll(Client& client, const Model& model, int concurrency, std::vector<Case>* cases) {
  std::atomic<size_t> next = 0;
  const auto work = [&] {
    for (size_t i = next++; i < cases->size(); i = next++) {
      (*cases)[i].status = ReplayCase(client, model, &(*cases)[i]);
    }
  };
  std::vector<std::jthread> threads;
  for (int i = 0; i < concurrency; ++i) threads.emplace_back(work);
}

absl::StatusOr<std::vector<Case>> ReadCases(const std::vector<std::string>& files) {
  std::vector<Case> cases;
  for (const std::string& file : files) {
    FATHOM_ASSIGN_OR_RETURN(const std::string text, ReadWholeFile(file, kGoldenBytesMax));
    FATHOM_ASSIGN_OR_RETURN(std::vector<Golden> goldens, ParseGoldens(text, file));
    for (Golden& golden : goldens) cases.push_back({file, std::move(golden), {}, {}});
  }
  return cases;
}

void PrintText(const std::vector<Case>& cases, size_t exact, double difference_max) {
  for (const Case& one : cases) {
    if (one.exact()) continue;
    const std::string where = fmt::format("{} ({}:{})", one.golden.name, one.file, one.golden.line);
    if (!one.status.ok()) fmt::print("{}: {}\n", where, Message(one.status));
    for (const std::string& line : one.comparison.differences) fmt::print("{}: {}\n", where, line);
  }
  fmt::print("rule cpu: texts and token ids equal, log-probabilities within {} (largest {:.1e})\n",
             kCpuLogprobTolerance, difference_max);
  fmt::print("{} of {} exact\n", exact, cases.size());
}

void PrintJson(const std::vector<Case>& cases, size_t exact, double difference_max) {
  nlohmann::ordered_json failed = nlohmann::ordered_json::array();
  for (const Case& one : cases) {
    if (one.exact()) continue;
    std::vector<std::string> lines = one.comparison.differences;
    if (!one.status.ok()) lines.push_back(ToString(one.status));
    failed.push_back({{"name", one.golden.name},
                      {"file", one.file},
                      {"line", one.golden.line},
                      {"differences", lines}});
  }
  const nlohmann::ordered_json all = {{"rule", "cpu"},
                                      {"exact", exact},
                                      {"total", cases.size()},
                                      {"logprob_difference_max", difference_max},
                                      {"failed", failed}};
  fmt::print("{}\n", all.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace));
}

}  // namespace

int RunVerify(int argc, const char* const* argv) {
  Flags flags("fathom verify", "Replays recorded answers against a running cluster.");
  std::vector<std::string> files;
  ServerFlag server;
  int32_t concurrency = 8;
  bool json = false;
  flags.Group("What");
  flags.Add("--goldens", &files, "Files of recorded answers, one JSON object a line");
  flags.Add("--concurrency", &concurrency, 1, 256, "Requests at once");
  server.Add(flags);
  flags.Group("Output");
  flags.Add("--json", &json, "Print one JSON object");
  if (const auto code = flags.Parse(argc, argv)) return *code;
  if (files.empty()) return Fail("verify", Invalid("--goldens FILE is missing"));

  auto cases = ReadCases(files);
  if (!cases.ok()) return Fail("verify", cases.status());
  const auto client = server.Dial();
  const auto model = client->GetModel();
  if (!model.ok()) return Fail("verify", model.status());
  ReplayAll(*client, *model, concurrency, &*cases);

  const auto exact = static_cast<size_t>(
      std::count_if(cases->begin(), cases->end(), [](const Case& one) { return one.exact(); }));
  double difference_max = 0;
  for (const Case& one : *cases) {
    difference_max = std::max(difference_max, one.comparison.logprob_difference_max);
  }
  (json ? PrintJson : PrintText)(*cases, exact, difference_max);
  if (exact == cases->size()) return kExitOk;
  const bool unavailable = std::any_of(cases->begin(), cases->end(), [](const Case& one) {
    return absl::IsUnavailable(one.status);
  });
  return unavailable ? kExitUnavailable : kExitInternal;
}

}  // namespace fathom::client
