#include "router/api/grammar_cache.h"

#include <utility>

#include "common/process.h"
#include "common/reason.h"

namespace fathom::router {
namespace {

void AppendSizedTo(std::string* to, const std::string& bytes) {
  for (int shift = 0; shift < 64; shift += 8) {
    to->push_back(static_cast<char>(static_cast<uint64_t>(bytes.size()) >> shift));
  }
  *to += bytes;
}

absl::Status WithField(const absl::Status& status, const std::string& field) {
  ErrorDetail detail = DetailOf(status).value_or(ErrorDetail{});
  if (detail.field.empty()) detail.field = field;
  return WithDetail(status, detail);
}

}  // namespace

absl::Status GrammarCache::CheckEngine(const std::string& field) const {
  if (engine_ != nullptr) return absl::OkStatus();
  return WithReason(
      Unimplemented("{} asks for guided output, and this router has no grammar engine{}", field,
                    GrammarEngine::Built()
                        ? " for this model: its folder has no tokenizer.json that it reads"
                        : "; run deploy/fetch-xgrammar and build again, or ask for the form in the "
                          "prompt"),
      Reason::kNoGrammarEngine, field);
}

// The digest is of the grammar as the client wrote it: the compiled bytes may have their parts in
// another order each time.
std::string GrammarCache::DigestOf(const GrammarSpec& spec) const {
  std::string bytes;
  AppendSizedTo(&bytes, engine_->vocabulary_digest());
  bytes.push_back(static_cast<char>(spec.kind));
  bytes.push_back(spec.closed ? 1 : 0);
  AppendSizedTo(&bytes, spec.text);
  for (const std::string& choice : spec.choices) AppendSizedTo(&bytes, choice);
  return Sha256Hex(bytes);
}

bool GrammarCache::Has(const GrammarSpec& spec) const {
  if (engine_ == nullptr) return true;
  const std::string digest = DigestOf(spec);
  const std::lock_guard lock(mutex_);
  const auto it = kept_.find(digest);
  return it != kept_.end() && it->second.grammar;
}

absl::StatusOr<GrammarRef> GrammarCache::Compile(const GrammarSpec& spec, const std::string& field,
                                                 std::string digest) const {
  FATHOM_ASSIGN_OR_RETURN(const CompiledGrammar compiled, engine_->Compile(spec, field));
  auto bytes = engine_->Serialize(compiled);
  if (!bytes.ok()) return WithField(bytes.status(), field);
  return GrammarRef({std::move(digest), engine_->vocabulary_digest(), *std::move(bytes)});
}

absl::StatusOr<GrammarRef> GrammarCache::Get(const GrammarSpec& spec, const std::string& field) {
  FATHOM_RETURN_IF_ERROR(CheckEngine(field));
  const std::string digest = DigestOf(spec);
  {
    std::unique_lock lock(mutex_);
    while (true) {
      const auto it = kept_.find(digest);
      if (it == kept_.end()) break;
      if (it->second.grammar) {
        ++stats_.hits_total;
        order_.splice(order_.end(), order_, it->second.place);
        return it->second.grammar;
      }
      compiled_.wait(lock);
    }
    kept_[digest].place = order_.end();
    ++stats_.compiles_total;
  }
  absl::StatusOr<GrammarRef> compiled = Compile(spec, field, digest);
  {
    const std::lock_guard lock(mutex_);
    if (compiled.ok()) {
      Kept& kept = kept_[digest];
      kept.grammar = *compiled;
      kept.place = order_.insert(order_.end(), digest);
      stats_.bytes += (*compiled)->bytes.size();
      DropOldest();
    } else {
      kept_.erase(digest);  // Another call gives its own error.
    }
  }
  compiled_.notify_all();
  return compiled;
}

void GrammarCache::DropOldest() {
  while (stats_.bytes > bytes_max_ && order_.size() > 1) {
    const auto it = kept_.find(order_.front());
    stats_.bytes -= it->second.grammar->bytes.size();
    kept_.erase(it);
    order_.pop_front();
  }
}

GrammarCache::Stats GrammarCache::stats() const {
  const std::lock_guard lock(mutex_);
  Stats stats = stats_;
  stats.grammars = order_.size();
  return stats;
}

}  // namespace fathom::router
