#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/regex.h"

#include <pcre2.h>

#include <cctype>

#include "common/check.h"
#include "common/status.h"

namespace fathom {
namespace {

// Far above what a published pattern needs for any text, and low enough that a match takes no
// noticeable time.
constexpr uint32_t kMatchLimit = 10'000'000;
constexpr size_t kJitStackMinBytes = 32 * 1024;
constexpr size_t kJitStackMaxBytes = 8 * 1024 * 1024;

// Unicode's White_Space, without brackets. PCRE2's own \s also has U+180E.
constexpr std::string_view kSpaceClass = "\\t-\\r\\x{85}\\p{Z}";

class OnigRewriter {
 public:
  explicit OnigRewriter(std::string_view pattern) : in_(pattern) {}

  absl::StatusOr<std::string> Run() {
    while (at_ < in_.size()) {
      const char c = in_[at_];
      absl::Status status = c == '\\' ? Escape() : in_class_ ? InClass(c) : OutsideClass(c);
      if (!status.ok()) return status;
    }
    return std::move(out_);
  }

 private:
  bool Sees(std::string_view text) const { return in_.substr(at_, text.size()) == text; }
  void Copy(size_t count) {
    out_.append(in_.substr(at_, count));
    at_ += count;
  }
  absl::Status Refuse(std::string_view what) const {
    return Invalid("pattern '{}' has {} at offset {}, which is not supported", in_, what, at_);
  }

  absl::Status Escape() {
    if (at_ + 1 == in_.size()) return Refuse("a backslash at its end");
    const char c = in_[at_ + 1];
    if (std::isalnum(static_cast<unsigned char>(c)) == 0) {
      Copy(2);
      return absl::OkStatus();
    }
    switch (c) {
      case 'n':
      case 'r':
      case 't':
        Copy(2);
        return absl::OkStatus();
      case 's':
        out_.append(in_class_ ? std::string(kSpaceClass) : "[" + std::string(kSpaceClass) + "]");
        break;
      case 'S':
        if (in_class_) return Refuse("\\S inside a class");
        out_.append("[^" + std::string(kSpaceClass) + "]");
        break;
      case 'd':
        out_.append("\\p{Nd}");
        break;
      case 'D':
        out_.append("\\P{Nd}");
        break;
      case 'p':
      case 'P':
      case 'x': {
        const size_t close = in_.find('}', at_);
        if (at_ + 2 >= in_.size() || in_[at_ + 2] != '{' || close == std::string_view::npos) {
          return Refuse("an escape without braces");
        }
        Copy(close + 1 - at_);
        return absl::OkStatus();
      }
      case 'u':
        if (at_ + 6 > in_.size()) return Refuse("an incomplete \\u");
        out_.append("\\x{" + std::string(in_.substr(at_ + 2, 4)) + "}");
        at_ += 6;
        return absl::OkStatus();
      default:
        return Refuse(fmt::format("\\{}", c));
    }
    at_ += 2;
    return absl::OkStatus();
  }

  absl::Status InClass(char c) {
    if (c == '[') return Refuse("a class inside a class");
    if (Sees("&&")) return Refuse("an intersection of classes");
    if (c == ']') in_class_ = false;
    Copy(1);
    return absl::OkStatus();
  }

  absl::Status OutsideClass(char c) {
    if (c == '[') {
      in_class_ = true;
      Copy(1);
      if (Sees("^")) Copy(1);
      if (Sees("]")) return Refuse("a class that begins with ]");
      return absl::OkStatus();
    }
    if (c == '(') return Group();
    if (c == '{') return Interval();
    Copy(1);
    return absl::OkStatus();
  }

  absl::Status Group() {
    if (!Sees("(?")) {
      if (Sees("(*")) return Refuse("a verb");
      Copy(1);
      return absl::OkStatus();
    }
    for (std::string_view known : {"(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>", "(?i:", "(?-i:"}) {
      if (Sees(known)) {
        Copy(known.size());
        return absl::OkStatus();
      }
    }
    // Inside a pattern, the two libraries give it a different reach.
    if (Sees("(?i)") && at_ == 0) {
      Copy(4);
      return absl::OkStatus();
    }
    return Refuse(fmt::format("a group '{}'", in_.substr(at_, 4)));
  }

  // {n}, {n,} and {n,m} mean the same in both, unless a + follows (possessive in one library,
  // repeated in the other).
  absl::Status Interval() {
    const size_t close = in_.find('}', at_);
    if (close == std::string_view::npos || close == at_ + 1 || in_[at_ + 1] == ',') {
      return Refuse("a { that is no interval");
    }
    for (size_t i = at_ + 1; i < close; ++i) {
      if (std::isdigit(static_cast<unsigned char>(in_[i])) == 0 && in_[i] != ',') {
        return Refuse("a { that is no interval");
      }
    }
    if (close + 1 < in_.size() && in_[close + 1] == '+') return Refuse("a + after an interval");
    Copy(close + 1 - at_);
    return absl::OkStatus();
  }

  std::string_view in_;
  size_t at_ = 0;
  bool in_class_ = false;
  std::string out_;
};

// The state that a match needs besides the pattern; each thread has one.
struct MatchState {
  MatchState()
      : data(pcre2_match_data_create(1, nullptr)),
        context(pcre2_match_context_create(nullptr)),
        stack(pcre2_jit_stack_create(kJitStackMinBytes, kJitStackMaxBytes, nullptr)) {
    FATHOM_CHECK(data != nullptr && context != nullptr, "out of memory");
    pcre2_set_match_limit(context, kMatchLimit);
    // Without its own stack (no executable memory, no JIT) PCRE2 uses 32 KiB of the thread's stack.
    if (stack != nullptr) pcre2_jit_stack_assign(context, nullptr, stack);
  }
  ~MatchState() {
    pcre2_match_data_free(data);
    pcre2_match_context_free(context);
    if (stack != nullptr) pcre2_jit_stack_free(stack);
  }
  MatchState(const MatchState&) = delete;
  MatchState& operator=(const MatchState&) = delete;

  pcre2_match_data* data;
  pcre2_match_context* context;
  pcre2_jit_stack* stack;
};

}  // namespace

absl::StatusOr<std::string> RewriteOnigPattern(std::string_view pattern) {
  return OnigRewriter(pattern).Run();
}

void Regex::Free::operator()(pcre2_real_code_8* code) const { pcre2_code_free(code); }

absl::StatusOr<Regex> Regex::Compile(std::string_view pattern) {
  FATHOM_ASSIGN_OR_RETURN(const std::string rewritten, RewriteOnigPattern(pattern));
  return Make(rewritten, PCRE2_MULTILINE);
}

absl::StatusOr<Regex> Regex::CompileLiteral(std::string_view text) {
  return Make(text, PCRE2_LITERAL);
}

absl::StatusOr<Regex> Regex::Make(std::string_view pattern, uint32_t options) {
  const std::unique_ptr<pcre2_compile_context, decltype(&pcre2_compile_context_free)> context(
      pcre2_compile_context_create(nullptr), pcre2_compile_context_free);
  FATHOM_CHECK(context != nullptr, "out of memory");
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  int error = 0;
  PCRE2_SIZE offset = 0;
  pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                                   options | PCRE2_UTF, &error, &offset, context.get());
  if (code == nullptr) {
    PCRE2_UCHAR text[256];
    pcre2_get_error_message(error, text, sizeof(text));
    return Invalid("pattern '{}' does not compile at offset {}: {}", pattern, offset,
                   reinterpret_cast<const char*>(text));
  }
  const bool jit = pcre2_jit_compile(code, PCRE2_JIT_COMPLETE) == 0;
  return Regex(code, jit);
}

Regex::Result Regex::Find(std::string_view subject, size_t offset, ByteSpan* match) const {
  thread_local MatchState state;
  const auto* text = reinterpret_cast<PCRE2_SPTR>(subject.data());
  // Neither call checks that the subject is UTF-8: the JIT never does, and in the other a check at
  // every call would make the total time quadratic.
  const int rc = jit_ ? pcre2_jit_match(code_.get(), text, subject.size(), offset, 0, state.data,
                                        state.context)
                      : pcre2_match(code_.get(), text, subject.size(), offset, PCRE2_NO_UTF_CHECK,
                                    state.data, state.context);
  if (rc == PCRE2_ERROR_NOMATCH) return Result::kNoMatch;
  if (rc < 0) return Result::kTooHard;
  const PCRE2_SIZE* range = pcre2_get_ovector_pointer(state.data);
  *match = {range[0], range[1]};
  return Result::kMatch;
}

}  // namespace fathom
