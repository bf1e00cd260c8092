// Grammars of any text, of every kind, for a small vocabulary. A grammar is refused with a reason
// and its field, or it compiles; then its compiled form reads back, and along a path through it
// both give equal masks, whose tokens are accepted.
#include <algorithm>
#include <iterator>

#include "common/check.h"
#include "common/status.h"
#include "tests/fuzz/fuzz.h"
#include "text/guided/grammar_engine.h"

namespace fathom {
namespace {

constexpr TokenId kEnd = 271;
constexpr int kStepsMax = 24;

const GrammarEngine& Engine() {
  static const GrammarEngine* const engine = [] {
    std::vector<std::string> tokens;
    for (int byte = 0; byte < 256; ++byte) tokens.emplace_back(1, static_cast<char>(byte));
    for (const char* piece : {"{\"", "\":", "\",", "\"}", "true", "null", "[]", "{}", "12", "name",
                              "\xe4\xbd\xa0", "}\n", ", \"", "abc", "", ""}) {
      tokens.emplace_back(piece);
    }
    return GrammarEngine::Make(std::move(tokens)).value().release();
  }();
  return *engine;
}

std::vector<uint32_t> MaskOf(GrammarMatcher* matcher) {
  std::vector<uint32_t> mask(GrammarMaskWords(Engine().vocab()));
  matcher->FillMask(mask);
  return mask;
}

// The allowed token number `choice` of those that the mask has; -1: none.
TokenId AllowedOf(const std::vector<uint32_t>& mask, size_t choice) {
  std::vector<TokenId> allowed;
  for (TokenId id = 0; id < Engine().vocab(); ++id) {
    if ((mask[static_cast<size_t>(id) / 32] >> (id % 32) & 1) != 0) allowed.push_back(id);
  }
  return allowed.empty() ? -1 : allowed[choice % allowed.size()];
}

void FuzzGrammar(const std::string& input) {
  if (input.empty()) return;
  GrammarSpec spec;
  const auto first = static_cast<unsigned char>(input[0]);
  spec.kind = static_cast<GrammarKind>(first % 6);
  spec.closed = first < 128;
  const std::string text = input.substr(1);
  if (spec.kind == GrammarKind::kChoice) {
    for (size_t begin = 0; begin <= text.size();) {
      const size_t end = std::min(text.find('\n', begin), text.size());
      spec.choices.push_back(text.substr(begin, end - begin));
      begin = end + 1;
    }
  } else {
    spec.text = text;
  }
  const auto grammar = Engine().Compile(spec, "field");
  if (!grammar.ok()) {
    FATHOM_CHECK(grammar.status().code() == absl::StatusCode::kInvalidArgument);
    FATHOM_CHECK(DetailOf(grammar.status())->field == "field");
    return;
  }
  const auto bytes = Engine().Serialize(*grammar);
  if (!bytes.ok()) return;
  const auto loaded = Engine().Load(*bytes);
  FATHOM_CHECK(loaded.ok(), "{}", ToString(loaded.status()));
  GrammarMatcher here(*grammar, {kEnd}), there(*loaded, {kEnd});
  for (int step = 0; step < kStepsMax && !here.ended(); ++step) {
    const std::vector<uint32_t> mask = MaskOf(&here);
    FATHOM_CHECK(mask == MaskOf(&there));
    const TokenId id = AllowedOf(mask, first + static_cast<size_t>(step) * 7);
    if (id < 0) return;  // A grammar of which nothing can be derived.
    FATHOM_CHECK(here.Accept(id) && there.Accept(id), "token {}", id);
  }
}

}  // namespace
}  // namespace fathom

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  fathom::FuzzGrammar({reinterpret_cast<const char*>(data), size});
  return 0;
}

std::vector<std::string> FuzzSeeds() {
  const std::string texts[] = {
      "",
      R"({"type":"object","properties":{"a":{"type":"string","maxLength":4},)"
      R"("b":{"enum":[1,null]}},)"
      R"("required":["a"],"additionalProperties":{"type":"integer","minimum":-3,"maximum":300}})",
      R"({"anyOf":[{"$ref":"#/$defs/n"},{"type":"array","prefixItems":[{"const":"x"}],"items":)"
      R"({"type":"number"}}],"$defs":{"n":{"type":"object",)"
      R"("properties":{"c":{"$ref":"#/$defs/n"}}}}})",
      R"((ab|c[^d-f]{2,5})*\d+(?:x|\u4f60)?.)",
      "root ::= \"{\" (item (\",\" item){0,3})? \"}\"\nitem ::= [a-z0-9]+ | root # c\n",
      "yes\nno\n\"quoted\"",
      R"({"type":"structural_tag","format":{"type":"triggered_tags","triggers":["<f"],"tags":[)"
      R"({"begin":"<f>","content":{"type":"json_schema",)"
      R"("json_schema":{"type":"boolean"}},"end":"</f>"}]}})"};
  const int kinds[] = {0, 1, 1, 2, 4, 3, 5};  // GrammarKind.
  std::vector<std::string> seeds;
  for (size_t i = 0; i < std::size(texts); ++i) {
    seeds.push_back(static_cast<char>(kinds[i]) + texts[i]);
  }
  return seeds;
}
