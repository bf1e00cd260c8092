#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/verify/vectors.h"
#include "common/output.h"
#include "text/tokenizer.h"

namespace fathom::client {
namespace {

// A vector has text and ids; some also have the decoded text with and without special tokens.
std::string Compare(const Tokenizer& tokenizer, const nlohmann::ordered_json& vector) {
  const auto text = vector.at("text").get<std::string>();
  const auto want = vector.at("ids").get<std::vector<TokenId>>();
  const auto ids = tokenizer.Encode(text);
  if (!ids.ok()) return std::string(Message(ids.status()));
  if (*ids != want) {
    return fmt::format("'{}': got {}, recorded {}", text, fmt::join(*ids, ","),
                       fmt::join(want, ","));
  }
  for (const auto& [key, skip_special] : {std::pair("decoded", false), {"decoded_skip", true}}) {
    if (!vector.contains(key)) continue;
    const auto decoded = tokenizer.Decode(want, skip_special);
    if (!decoded.ok()) return std::string(Message(decoded.status()));
    const auto recorded = vector[key].get<std::string>();
    if (*decoded != recorded) return fmt::format("{}: {}", key, TextDifference(*decoded, recorded));
  }
  return "";
}

int Check(const Tokenizer& tokenizer, const std::string& path) {
  const auto jsonl = ReadWholeFile(path, kVectorsBytesMax);
  if (!jsonl.ok()) return Fail("tokenize", jsonl.status());
  const auto counts = CheckVectors(
      *jsonl, path,
      [&](const nlohmann::ordered_json& vector) {
        return std::optional<std::string>(Compare(tokenizer, vector));
      },
      [](const std::string& line) { PrintAnswer("{}\n", line); });
  if (!counts.ok()) return Fail("tokenize", counts.status());
  PrintAnswer("{} of {} exact\n", counts->exact, counts->total);
  return counts->exact == counts->total ? kExitOk : kExitInternal;
}

}  // namespace

int RunTokenize(int argc, const char* const* argv) {
  Flags flags("fathom tokenize", "Token ids of a text, or a check of recorded ones.");
  std::string model, text, vectors;
  bool add_special = false;
  flags.AddPositional("TEXT", &text, /*required=*/false, "The text; its ids are printed");
  flags.Group("What");
  flags.Add("--model", &model, "Model folder, or a folder with a tokenizer.json");
  flags.Add("--vectors", &vectors, "File of texts and their ids; prints N of N exact");
  flags.Add("--add-special-tokens", &add_special, "With BOS, where the tokenizer has one");
  if (const auto code = flags.Parse(argc, argv)) return *code;
  if (model.empty()) return Fail("tokenize", Invalid("--model DIR is missing"));

  const auto tokenizer = Tokenizer::Load(model);
  if (!tokenizer.ok()) {
    Fail("tokenize", tokenizer.status());
    return kExitBadModel;
  }
  if (!vectors.empty()) return Check(**tokenizer, vectors);
  const auto ids = (*tokenizer)->Encode(text, {.add_special_tokens = add_special});
  if (!ids.ok()) return Fail("tokenize", ids.status());
  PrintAnswer("{}\n", fmt::join(*ids, ","));
  return kExitOk;
}

}  // namespace fathom::client
