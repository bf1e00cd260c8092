// text/pre_tokenizer.h: splits a text into the words for BPE. Thread: constant after Make.
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

namespace fathom {

// What happens to a match, and to the text between matches.
enum class SplitBehavior {
  kIsolated,            // Each becomes a word.
  kRemoved,             // Matches are dropped.
  kMergedWithPrevious,  // A match is joined to the text before it.
  kMergedWithNext,      // A match is joined to the text after it.
  kContiguous,          // Consecutive matches become one word.
};

struct SplitSpec {
  std::string pattern;
  bool is_regex = true;  // False: the pattern is a plain text.
  SplitBehavior behavior = SplitBehavior::kIsolated;
  bool invert = false;  // The texts between matches count as the matches.
};

struct PreTokenizerSpec {
  std::vector<SplitSpec> splits;  // In order; each splits every word that the previous one made.
  // After the splits, ByteLevel: adds a space before each word that has none, then its own split.
  bool add_prefix_space = false;
  std::optional<SplitSpec> byte_level_split;
};

class PreTokenizer {
 public:
  // The error of a pattern names it.
  static absl::StatusOr<PreTokenizer> Make(const PreTokenizerSpec& spec);

  // The words of `text`, in order, none empty. They are views into `text` or, if spaces were added,
  // into *buffer. INVALID_ARGUMENT if a pattern backtracks too much; CANCELLED if *cancel says so.
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

}  // namespace fathom
