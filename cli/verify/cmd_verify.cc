#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <thread>

#include "cli/commands.h"
#include "cli/verify/golden.h"
#include "cli/verify/verify_cached.h"
#include "cli/verify/verify_rules.h"
#include "common/output.h"

namespace fathom::client {
namespace {

constexpr int64_t kGoldenBytesMax = 256 << 20;

struct Case {
  std::string file;
  Golden golden;
  absl::Status status;  // The status of the calls.
  Comparison comparison;
  bool passed = false;  // By the rule, including the means of the file.
};

// The differences that the rule finds in a whole file.
struct FileReport {
  std::string file;
  std::vector<std::string> differences;
};

struct VerifyReport {
  VerifyRule rule = VerifyRule::kCpu;
  std::vector<FileReport> files;  // Files that break a bound on a mean.
  size_t passed = 0;
  size_t exact = 0;  // Passed cases whose ids equal the recorded ones.
  Distances outputs, prompts;
  double distance_max = 0;
};

absl::StatusOr<Answer> Ask(Client& client, const Golden& golden, const RequestOptions& options) {
  if (golden.conversation) {
    ChatRequest request{options, *golden.conversation};
    request.conversation.tool_calls = false;  // A golden answer is the model's text.
    return client.Chat(request);
  }
  GenerateRequest request{options, golden.prompt_ids};
  if (golden.prompt) request.prompt = *golden.prompt;
  return client.Generate(request);
}

absl::Status ReplayCase(Client& client, const Model& model, VerifyRule rule, Case* one) {
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
  if (rule == VerifyRule::kCpu) {
    one->comparison = CompareCpu(golden, replay);
    return absl::OkStatus();
  }
  FATHOM_ASSIGN_OR_RETURN(const Answer scored, client.Generate(ScoreRequest(golden)));
  replay.scored = scored.prompt_logprobs;
  one->comparison = CompareCuda(golden, replay);
  return absl::OkStatus();
}

// Replays all cases, `concurrency` at a time.
void ReplayAll(Client& client, const Model& model, VerifyRule rule, int concurrency,
               std::vector<Case>* cases) {
  std::atomic<size_t> next = 0;
  const auto work = [&] {
    for (size_t i = next++; i < cases->size(); i = next++) {
      (*cases)[i].status = ReplayCase(client, model, rule, &(*cases)[i]);
    }
  };
  std::vector<std::jthread> threads;
  threads.reserve(concurrency);
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

// If the means of a file are out of bounds, no case of the file passes: the means show that
// something is wrong, but not in which case.
VerifyReport Judge(VerifyRule rule, std::vector<Case>* cases) {
  VerifyReport report{.rule = rule};
  for (auto begin = cases->begin(); begin != cases->end();) {
    const auto end =
        std::find_if(begin, cases->end(), [&](const Case& one) { return one.file != begin->file; });
    Distances outputs, prompts;
    for (auto one = begin; one != end; ++one) {
      outputs.Add(one->comparison.outputs);
      prompts.Add(one->comparison.prompts);
      report.distance_max = std::max(report.distance_max, one->comparison.alternatives.max);
    }
    FileReport file{begin->file, {}};
    if (rule == VerifyRule::kCuda) file.differences = CheckMeansCuda(outputs, prompts);
    for (auto one = begin; one != end; ++one) {
      one->passed =
          one->status.ok() && one->comparison.differences.empty() && file.differences.empty();
      report.passed += one->passed ? 1 : 0;
      report.exact += one->passed && one->comparison.ids_equal ? 1 : 0;
    }
    if (!file.differences.empty()) report.files.push_back(std::move(file));
    report.outputs.Add(outputs);
    report.prompts.Add(prompts);
    begin = end;
  }
  report.distance_max = std::max({report.distance_max, report.outputs.max, report.prompts.max});
  return report;
}

void PrintText(const std::vector<Case>& cases, const VerifyReport& report) {
  for (const Case& one : cases) {
    const std::string where = fmt::format("{} ({}:{})", one.golden.name, one.file, one.golden.line);
    if (!one.status.ok()) PrintAnswer("{}: {}\n", where, Message(one.status));
    for (const std::string& line : one.comparison.differences) PrintAnswer("{}: {}\n", where, line);
  }
  for (const FileReport& file : report.files) {
    for (const std::string& line : file.differences) PrintAnswer("{}: {}\n", file.file, line);
  }
  if (report.rule == VerifyRule::kCpu) {
    PrintAnswer(
        "rule cpu: texts and token ids equal, log-probabilities within {} (largest {:.1e})\n",
        kCpuLogprobTolerance, report.distance_max);
    PrintAnswer("{} of {} exact\n", report.passed, cases.size());
    return;
  }
  PrintAnswer(
      "rule cuda: texts and prompt ids equal; output ids equal up to the first gap of {} or less; "
      "scored as a prompt, the recorded token is the best at every larger gap\n",
      kCudaNearTie);
  PrintAnswer(
      "log-probabilities of outputs within {} (largest {:.4f}), on average within {} (over all "
      "{:.4f}); of prompts on average within {} (over all {:.4f}, largest {:.4f})\n",
      kCudaLogprobTolerance, report.outputs.max, kCudaOutputMeanMax, report.outputs.mean(),
      kCudaPromptMeanMax, report.prompts.mean(), report.prompts.max);
  PrintAnswer("{} of {} within the rule ({} with exactly the recorded ids)\n", report.passed,
              cases.size(), report.exact);
}

nlohmann::ordered_json JsonOf(const Distances& distances) {
  return {{"count", distances.count},
          {"difference_max", distances.max},
          {"difference_mean", distances.mean()}};
}

void PrintJson(const std::vector<Case>& cases, const VerifyReport& report) {
  nlohmann::ordered_json failed = nlohmann::ordered_json::array();
  for (const FileReport& file : report.files) {
    failed.push_back({{"name", file.file},
                      {"file", file.file},
                      {"line", nullptr},
                      {"differences", file.differences}});
  }
  for (const Case& one : cases) {
    std::vector<std::string> lines = one.comparison.differences;
    if (!one.status.ok()) lines.push_back(ToString(one.status));
    if (lines.empty()) continue;
    failed.push_back({{"name", one.golden.name},
                      {"file", one.file},
                      {"line", one.golden.line},
                      {"differences", lines}});
  }
  const nlohmann::ordered_json all = {{"rule", NameOf(report.rule)},
                                      {"passed", report.passed},
                                      {"exact", report.exact},
                                      {"total", cases.size()},
                                      {"logprob_difference_max", report.distance_max},
                                      {"outputs", JsonOf(report.outputs)},
                                      {"prompts", JsonOf(report.prompts)},
                                      {"failed", failed}};
  PrintAnswer("{}\n", all.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace));
}

absl::StatusOr<VerifyRule> ChooseRule(const std::string& flag, const Model& model) {
  if (flag == "cpu") return VerifyRule::kCpu;
  if (flag == "cuda") return VerifyRule::kCuda;
  if (model.fingerprint.empty()) {
    return Unavailable(
        "the cluster has no worker yet, so it is not known what it computes on; wait until it is "
        "ready, or give --rule");
  }
  return RuleFor(model);
}

}  // namespace

int RunVerify(int argc, const char* const* argv) {
  Flags flags("fathom verify",
              "Replays recorded answers against a running cluster, or compares answers from its "
              "prefix cache with cold ones.");
  std::vector<std::string> files;
  ServerFlag server;
  int32_t concurrency = 8;
  std::string rule_flag = "auto";
  bool json = false, cached = false;
  CachedOptions cached_options;
  int64_t seed = 1;
  flags.Group("What");
  flags.Add("--goldens", &files, "Files of recorded answers, one JSON object a line");
  flags.Add("--cached", &cached,
            "Compare answers from the prefix cache with cold ones, bit for bit; needs no file");
  flags.Add("--cases", &cached_options.cases, 1, 100'000, "With --cached: conversations");
  flags.Add("--seed", &seed, 0, INT64_MAX, "With --cached: of the prompts");
  flags.Add("--concurrency", &concurrency, 1, 256, "Requests at once");
  flags.AddChoice("--rule", &rule_flag, {"auto", "cpu", "cuda"},
                  "What counts as the recorded answer; auto: by what the cluster computes on");
  server.Add(flags);
  flags.Group("Output");
  flags.Add("--json", &json, "Print one JSON object");
  if (const auto code = flags.Parse(argc, argv)) return *code;
  if (files.empty() != cached) {
    return Fail("verify", Invalid("give either --goldens FILE or --cached"));
  }
  auto cases = ReadCases(files);
  if (!cases.ok()) return Fail("verify", cases.status());
  const auto client = server.Dial();
  if (!client.ok()) return Fail("verify", client.status());
  const auto model = (*client)->GetModel();
  if (!model.ok()) return Fail("verify", model.status());
  if (cached) {
    cached_options.seed = static_cast<uint64_t>(seed);
    cached_options.concurrency = concurrency;
    cached_options.json = json;
    return VerifyCached(**client, *model, cached_options);
  }
  const auto rule = ChooseRule(rule_flag, *model);
  if (!rule.ok()) return Fail("verify", rule.status());
  ReplayAll(**client, *model, *rule, concurrency, &*cases);
  const VerifyReport report = Judge(*rule, &*cases);
  (json ? PrintJson : PrintText)(*cases, report);
  if (report.passed == cases->size()) return kExitOk;
  const bool unavailable = std::any_of(cases->begin(), cases->end(), [](const Case& one) {
    return absl::IsUnavailable(one.status);
  });
  return unavailable ? kExitUnavailable : kExitInternal;
}

}  // namespace fathom::client
