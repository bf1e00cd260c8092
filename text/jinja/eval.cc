#include "text/jinja/eval.h"

#include <fmt/format.h>

#include <ctime>
#include <map>

namespace fathom::router::jinja {
namespace {

constexpr size_t kRangeMax = 100'000;
constexpr int64_t kCancelCheckSteps = 1000;

enum class Flow { kNext, kBreak, kContinue };

// Names in sight: the innermost scope last. A for body and a macro's body have scopes of their own;
// an if has not.
class Scopes {
 public:
  Scopes() : scopes_(1) {}
  void Push() { scopes_.emplace_back(); }
  void Pop() { scopes_.pop_back(); }
  void Set(const std::string& name, Value value) { scopes_.back()[name] = std::move(value); }
  Value Get(const std::string& name) const {
    for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope) {
      if (auto it = scope->find(name); it != scope->end()) return it->second;
    }
    return Value(Undefined{name});
  }

 private:
  std::vector<std::map<std::string, Value, std::less<>>> scopes_;
};

class Evaluator {
 public:
  Evaluator(int64_t now_unix_s, const EvalLimits& limits)
      : now_unix_s_(now_unix_s), limits_(limits), cancel_(limits_.cancelled, kCancelCheckSteps) {}

  Evaluator(const Evaluator&) = delete;
  Evaluator& operator=(const Evaluator&) = delete;
  // Namespaces may hold each other, or themselves.
  ~Evaluator() {
    for (const auto& space : spaces_) space->clear();
  }

  Str Run(const Block& block, const Variables& globals) {
    for (const char* name : {"namespace", "range", "raise_exception", "strftime_now", "dict"}) {
      scopes_.Set(name, Value(Callable{name, nullptr}));
    }
    for (const auto& [name, value] : globals) scopes_.Set(name, value);
    scopes_.Push();
    Execute(block);
    return out_.Take();
  }

 private:
  // Counts every evaluation and bounds nesting.
  struct Entered {
    Entered(Evaluator* e, int line) : evaluator(e) {
      if (++e->steps_ > e->limits_.steps_max) {
        throw TemplateError(fmt::format("line {}: the template takes more than {} steps", line,
                                        e->limits_.steps_max));
      }
      if (e->cancel_.After(1)) throw RenderCancelled();
      if (++e->depth_ > e->limits_.depth_max) {
        throw TemplateError(
            fmt::format("line {}: nested deeper than {}", line, e->limits_.depth_max));
      }
    }
    ~Entered() { --evaluator->depth_; }
    Evaluator* evaluator;
  };

  void CheckOutput() const {
    if (static_cast<int64_t>(out_.size()) > limits_.bytes_max) {
      throw TemplateError(
          fmt::format("the rendered text is longer than {} bytes", limits_.bytes_max));
    }
  }

  // ---- Statements ----
  Flow Execute(const Block& block) {
    for (const auto& node : block) {
      const Flow flow = Execute(*node);
      if (flow != Flow::kNext) return flow;
    }
    return Flow::kNext;
  }

  Flow Execute(const Node& node) {
    const Entered entered(this, node.line);
    switch (node.kind) {
      case NodeKind::kText:
        out_.Append(node.text);
        CheckOutput();
        return Flow::kNext;
      case NodeKind::kOutput:
        out_.Append(Eval(*node.expr).Text());
        CheckOutput();
        return Flow::kNext;
      case NodeKind::kIf:
        for (const Branch& branch : node.branches) {
          if (branch.condition == nullptr || Eval(*branch.condition).Truthy())
            return Execute(branch.body);
        }
        return Flow::kNext;
      case NodeKind::kFor:
        For(node);
        return Flow::kNext;
      case NodeKind::kSet:
        Set(node);
        return Flow::kNext;
      case NodeKind::kMacro:
        macros_[node.text] = &node;
        scopes_.Set(node.text, Value(Callable{node.text, nullptr}));
        return Flow::kNext;
      case NodeKind::kBreak:
        return Flow::kBreak;
      case NodeKind::kContinue:
        return Flow::kContinue;
    }
    return Flow::kNext;
  }

  // Binds one loop item or one set value to its names, unpacking a list where there are several.
  void Bind(const std::vector<std::string>& names, const Value& value) {
    if (names.size() == 1) {
      scopes_.Set(names[0], value);
      return;
    }
    const List parts = Iterate(value);
    if (parts.size() != names.size()) {
      throw TemplateError(
          fmt::format("cannot unpack {} values into {} names", parts.size(), names.size()));
    }
    for (size_t i = 0; i < names.size(); ++i) scopes_.Set(names[i], parts[i]);
  }

  void For(const Node& node) {
    List items = Iterate(Eval(*node.expr));
    if (node.filter != nullptr) {
      List kept;
      for (Value& item : items) {
        scopes_.Push();
        Bind(node.targets, item);
        const bool keep = Eval(*node.filter).Truthy();
        scopes_.Pop();
        if (keep) kept.push_back(std::move(item));
      }
      items = std::move(kept);
    }
    if (items.empty()) {
      Execute(node.otherwise);
      return;
    }
    for (size_t i = 0; i < items.size(); ++i) {
      const Entered entered(this, node.line);
      scopes_.Push();
      Bind(node.targets, items[i]);
      scopes_.Set("loop", Loop(items, i));
      const Flow flow = Execute(node.body);
      scopes_.Pop();
      if (flow == Flow::kBreak) break;
    }
  }

  // Keys are made once: a loop has one of these for each item.
  static Value Loop(const List& items, size_t i) {
    static const Value kIndex0("index0"), kIndex("index"), kFirst("first"), kLast("last"),
        kLength("length"), kRevindex("revindex"), kRevindex0("revindex0"), kPrevitem("previtem"),
        kNextitem("nextitem");
    const auto index = static_cast<int64_t>(i), size = static_cast<int64_t>(items.size());
    Map loop;
    loop.reserve(9);
    loop.emplace_back(kIndex0, index);
    loop.emplace_back(kIndex, index + 1);
    loop.emplace_back(kFirst, i == 0);
    loop.emplace_back(kLast, i + 1 == items.size());
    loop.emplace_back(kLength, size);
    loop.emplace_back(kRevindex, size - index);
    loop.emplace_back(kRevindex0, size - index - 1);
    loop.emplace_back(kPrevitem, i == 0 ? Value(Undefined{"previtem"}) : items[i - 1]);
    loop.emplace_back(kNextitem,
                      i + 1 == items.size() ? Value(Undefined{"nextitem"}) : items[i + 1]);
    return Value(std::move(loop));
  }

  void Set(const Node& node) {
    const Value value = node.expr != nullptr ? Eval(*node.expr) : Value(Captured(node.body));
    if (node.text.empty()) {
      Bind(node.targets, value);
      return;
    }
    Namespace* space = scopes_.Get(node.targets[0]).name_space();
    if (space == nullptr) {
      throw TemplateError(fmt::format("line {}: {} is not a namespace, so {}.{} cannot be set",
                                      node.line, node.targets[0], node.targets[0], node.text));
    }
    (*space)[node.text] = value;
  }

  Str Captured(const Block& body) {
    StrBuilder outer = std::exchange(out_, {});
    Execute(body);
    return std::exchange(out_, std::move(outer)).Take();
  }

  // ---- Expressions ----
  Value Eval(const Expr& e) {
    const Entered entered(this, e.line);
    switch (e.kind) {
      case ExprKind::kLiteral:
        return e.value;
      case ExprKind::kName:
        return scopes_.Get(e.name);
      case ExprKind::kList:
        return Value(EvalAll(e, 0));
      case ExprKind::kDict:
        return Dict(e);
      case ExprKind::kAttribute:
        return Attribute(Eval(*e.args[0]), e.name);
      case ExprKind::kSubscript:
        return Subscript(Eval(*e.args[0]), Eval(*e.args[1]));
      case ExprKind::kSlice:
        return Slice(Eval(*e.args[0]), EvalOr(e.args[1]), EvalOr(e.args[2]), EvalOr(e.args[3]));
      case ExprKind::kCall:
        return Call(Eval(*e.args[0]), Arguments(e));
      case ExprKind::kFilter:
        return ApplyFilter(e.name, Eval(*e.args[0]), Arguments(e));
      case ExprKind::kTest:
        return Value(ApplyTest(e.name, Eval(*e.args[0]), Arguments(e)) != e.negate);
      case ExprKind::kUnary:
        return Unary(e.name, Eval(*e.args[0]));
      case ExprKind::kBinary:
        return Binary(e);
      case ExprKind::kCompare:
        return Compare(e);
      case ExprKind::kIf:
        return Eval(*e.args[1]).Truthy() ? Eval(*e.args[0]) : EvalOr(e.args[2]);
    }
    return Value();
  }

  Value EvalOr(const ExprPtr& expr) { return expr != nullptr ? Eval(*expr) : Value(); }

  List EvalAll(const Expr& e, size_t from) {
    List values;
    for (size_t i = from; i < e.args.size(); ++i) values.push_back(Eval(*e.args[i]));
    return values;
  }

  CallArgs Arguments(const Expr& e) {
    CallArgs args;
    args.args = EvalAll(e, 1);
    for (const auto& [name, expr] : e.named) args.named.emplace_back(name, Eval(*expr));
    args.bytes_max = limits_.bytes_max;
    return args;
  }

  Value Dict(const Expr& e) {
    Map map;
    for (size_t i = 0; i + 1 < e.args.size(); i += 2) {
      const Value key = Eval(*e.args[i]);
      if (!key.is_string())
        throw TemplateError(fmt::format("a {} cannot be a key", key.TypeName()));
      map.emplace_back(key, Eval(*e.args[i + 1]));
    }
    return Value(std::move(map));
  }

  // x.name: methods first, then entries, as in Jinja; x["name"] the other way round.
  static Value Attribute(const Value& object, const std::string& name) {
    if (HasMethod(object, name))
      return Value(Callable{name, std::make_shared<const Value>(object)});
    return Item(object, Value(name));
  }
  static Value Subscript(const Value& object, const Value& key) {
    Value found = Item(object, key);
    if (found.is_undefined() && key.is_string() && HasMethod(object, key.string()->view())) {
      return Attribute(object, key.string()->str());
    }
    return found;
  }

  Value Call(const Value& callee, const CallArgs& args) {
    const Callable* function = callee.callable();
    if (function == nullptr)
      throw TemplateError(fmt::format("{} cannot be called", callee.TypeName()));
    if (function->self != nullptr) return CallMethod(*function->self, function->name, args);
    if (auto it = macros_.find(function->name); it != macros_.end())
      return CallMacro(*it->second, args);
    if (function->name == "namespace") {
      auto space = std::make_shared<Namespace>();
      for (const auto& [name, value] : args.named) (*space)[name] = value;
      spaces_.push_back(space);
      return Value(std::move(space));
    }
    if (function->name == "dict") {
      Map map;
      for (const auto& [name, value] : args.named) map.emplace_back(name, value);
      return Value(std::move(map));
    }
    if (function->name == "range") return Range(args);
    if (function->name == "strftime_now")
      return Value(FormatNow(args.Get(0, "format").Text().str()));
    throw TemplateError("the template refuses this conversation: " +
                        args.Get(0, "message").Text().str());
  }

  Value CallMacro(const Node& macro, const CallArgs& args) {
    scopes_.Push();
    for (size_t i = 0; i < macro.targets.size(); ++i) {
      Value value = args.Get(i, macro.targets[i]);
      if (value.is_undefined() && macro.defaults[i] != nullptr) value = Eval(*macro.defaults[i]);
      scopes_.Set(macro.targets[i], std::move(value));
    }
    Str text = Captured(macro.body);
    scopes_.Pop();
    return Value(std::move(text));
  }

  static Value Range(const CallArgs& args) {
    std::vector<int64_t> n;
    for (const Value& v : args.args) {
      if (!v.is_int()) throw TemplateError("range needs integers");
      n.push_back(v.AsInt());
    }
    if (n.empty() || n.size() > 3) throw TemplateError("range takes one to three integers");
    const int64_t start = n.size() > 1 ? n[0] : 0, stop = n.size() > 1 ? n[1] : n[0],
                  step = n.size() > 2 ? n[2] : 1;
    if (step == 0) throw TemplateError("range: the step is zero");
    List out;
    for (int64_t i = start; step > 0 ? i < stop : i > stop;) {
      if (out.size() >= kRangeMax)
        throw TemplateError(fmt::format("range: more than {} items", kRangeMax));
      out.emplace_back(i);
      if (__builtin_add_overflow(i, step, &i)) break;
    }
    return Value(std::move(out));
  }

  std::string FormatNow(const std::string& format) const {
    const time_t now = now_unix_s_;
    tm parts{};
    gmtime_r(&now, &parts);
    char text[256];
    return {text, strftime(text, sizeof text, format.c_str(), &parts)};
  }

  static Value Unary(const std::string& op, const Value& value) {
    if (op == "not") return Value(!value.Truthy());
    if (!value.is_number())
      throw TemplateError(fmt::format("unsupported operand for {}: {}", op, value.TypeName()));
    if (value.is_float()) return Value(op == "-" ? -value.AsDouble() : value.AsDouble());
    if (op == "-" && value.AsInt() == INT64_MIN) throw TemplateError("-(-2**63) is too large");
    return Value(op == "-" ? -value.AsInt() : value.AsInt());
  }

  Value Binary(const Expr& e) {
    Value left = Eval(*e.args[0]);
    if (e.name == "and") return left.Truthy() ? Eval(*e.args[1]) : left;
    if (e.name == "or") return left.Truthy() ? left : Eval(*e.args[1]);
    return BinaryOp(e.name, left, Eval(*e.args[1]), limits_.bytes_max);
  }

  Value Compare(const Expr& e) {
    Value left = Eval(*e.args[0]);
    for (size_t i = 0; i < e.ops.size(); ++i) {
      Value right = Eval(*e.args[i + 1]);
      if (!CompareOp(e.ops[i], left, right)) return Value(false);
      left = std::move(right);
    }
    return Value(true);
  }

  const int64_t now_unix_s_;
  const EvalLimits limits_;
  CancelCheck cancel_;
  int64_t steps_ = 0;
  int depth_ = 0;
  Scopes scopes_;
  std::map<std::string, const Node*> macros_;
  std::vector<std::shared_ptr<Namespace>> spaces_;  // All that were made.
  StrBuilder out_;
};

}  // namespace

Str Render(const Block& block, const Variables& globals, int64_t now_unix_s,
           const EvalLimits& limits) {
  return Evaluator(now_unix_s, limits).Run(block, globals);
}

}  // namespace fathom::router::jinja
