// text/pre_tokenizer.h: cuts a text into the words that BPE works on.
// Thread: constant after Make.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/cancel.h"
#include "text/regex.h"
#include "text/tokenizer.h"

namespace fathom::router {

// What becomes of a match, and of the text between matches.
enum class SplitBehavior {
  kIsolated,            // Each a word of its own.
  kRemoved,             // Matches are dropped.
  kMergedWithPrevious,  // A match belongs to the text before it,
  kMergedWithNext,      // or behind it.
  kContiguous,          // Matches in a row are one word.
};

struct SplitSpec {
  std::string pattern;
  bool is_regex = true;  // Else the text itself.
  SplitBehavior behavior = SplitBehavior::kIsolated;
  bool invert = false;  // Matches are what lies between the pattern's.
};

struct PreTokenizerSpec {
  std::vector<SplitSpec> splits;  // In order; each acts on every word of the one before.
  // Then ByteLevel: a space before each word that has none, then its own split.
  bool add_prefix_space = false;
  std::optional<SplitSpec> byte_level_split;
};

class PreTokenizer {
 public:
  // The error of a pattern says which one.
  static absl::StatusOr<PreTokenizer> Make(const PreTokenizerSpec& spec);

  // Words of `text`, in order, none empty: views into `text` or, where spaces were added, into
  // *buffer. INVALID_ARGUMENT if a pattern backtracks without end; CANCELLED as *cancel says.
  // REQUIRES: `text` is UTF-8.
  absl::Status Split(std::string_view text, CancelCheck* cancel, std::string* buffer,
                     std::vector<std::string_view>* words) const;

 private:
  struct Step {
    Regex regex;
    SplitBehavior behavior;
    bool invert;
  };
  static absl::StatusOr<Step> MakeStep(const SplitSpec& spec);
  static absl::Status Apply(const Step& step, CancelCheck* cancel,
                            std::vector<std::string_view>* words);

  std::vector<Step> steps_;
  bool add_prefix_space_ = false;
  std::optional<Step> last_;
};

}  // namespace fathom::router
