#include "router/api/stop_tokens.h"

#include <algorithm>
#include <string>

#include "common/reason.h"
#include "text/tool_call_form.h"

namespace fathom::router {

absl::Status ResolveStopStrings(const Tokenizer& tokenizer, bool chat, PublicRequest* request) {
  PublicStop& stop = request->stop;
  if (stop.strings.empty()) return absl::OkStatus();
  const auto thinking = chat ? DetectThinkingForm(tokenizer) : std::nullopt;
  const auto in_no_text = [&](const AddedToken& token) {
    if (thinking && (token.id == thinking->begin.id || token.id == thinking->end.id)) return true;
    return token.special && !request->output.keep_special;
  };
  for (size_t i = 0; i < stop.strings.size(); ++i) {
    const std::string& string = stop.strings[i];
    const AddedToken* inside = nullptr;  // The longest one.
    for (const AddedToken& token : tokenizer.added_tokens()) {
      if (!in_no_text(token) || string.find(token.content) == std::string::npos) continue;
      if (inside == nullptr || token.content.size() > inside->content.size()) inside = &token;
    }
    if (inside == nullptr) continue;
    if (inside->content != string) {
      return WithReason(
          Invalid("stop.strings[{}] has the special token '{}' (id {}) in it, which is left out of "
                  "the text, so that it would never be found; put {} into stop.token_ids{}",
                  i, inside->content, inside->id, inside->id,
                  inside->special ? ", or set output.keep_special" : ""),
          Reason::kStopNeverFound, fmt::format("stop.strings[{}]", i));
    }
    const auto& ids = stop.token_ids;
    if (std::find(ids.begin(), ids.end(), inside->id) == ids.end()) {
      stop.token_ids.push_back(inside->id);
    }
  }
  return absl::OkStatus();
}

}  // namespace fathom::router
