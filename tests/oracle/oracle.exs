# What OTP does: runs the scripts that come on stdin, and prints a trace of each. See script.rs for what the lines mean.
#
# A process of a script is a GenServer, a bucket is an Agent under a DynamicSupervisor, and the registrar is a GenServer
# under a Supervisor, which finds the names again in an ETS table. After each line it waits until nothing is on its way, so
# that the trace is the same each time; what OTP leaves open within a line is sorted.

defmodule Oracle.Actor do
  # Keeps what it was told, newest first.
  use GenServer

  def init(_), do: {:ok, []}

  def handle_call({:do, work}, _, mail), do: {:reply, work.(), mail}
  def handle_call(:mail, _, mail), do: {:reply, Enum.reverse(mail), []}
  def handle_call({:quit, reason}, _, mail), do: {:stop, reason, :quits, mail}
  def handle_call({:crash, words}, _, _), do: raise(words)

  def handle_cast({:note, _} = note, mail), do: {:noreply, [note | mail]}
  def handle_cast({:fall, words}, _), do: raise(words)

  def handle_cast(:hold, mail) do
    hold()
    {:noreply, mail}
  end

  def handle_info(info, mail), do: {:noreply, [info | mail]}

  # In the middle of a handler: what is sent to it waits, and it can still be told to do something.
  defp hold do
    receive do
      {:do, master, ref, work} ->
        send(master, {ref, work.()})
        hold()

      :release ->
        :ok
    end
  end
end

defmodule Oracle.Registrar do
  use GenServer

  def start_link(_), do: GenServer.start_link(__MODULE__, nil, name: __MODULE__)

  def init(_) do
    for {_, pid} <- :ets.tab2list(:names), do: Process.monitor(pid)
    {:ok, nil}
  end

  def handle_call({:crash, words}, _, _), do: raise(words)

  def handle_call({:create, name}, _, state) do
    case lookup(name) do
      nil ->
        agent = %{id: :agent, restart: :temporary, start: {Agent, :start_link, [fn -> {0, %{}} end]}}
        {:ok, pid} = DynamicSupervisor.start_child(Oracle.Buckets, agent)
        Process.monitor(pid)
        :ets.insert(:names, {name, pid})
        {:reply, {pid, true}, state}

      pid ->
        {:reply, {pid, false}, state}
    end
  end

  def handle_info({:DOWN, _, :process, pid, _}, state) do
    :ets.match_delete(:names, {:_, pid})
    {:noreply, state}
  end

  def lookup(name) do
    case :ets.lookup(:names, name) do
      [{_, pid}] -> if Process.alive?(pid), do: pid
      [] -> nil
    end
  end
end

defmodule Oracle do
  alias Oracle.{Actor, Registrar}

  @deadline_ms 20_000

  def main do
    :logger.set_primary_config(:level, :none)

    case IO.read(:line) do
      :eof ->
        :ok

      line ->
        script([line])
        main()
    end
  end

  # A script is lines up to an empty one, and so is its trace.
  defp script([line | rest]) do
    case String.trim(line) do
      "" -> IO.puts(Enum.join(run(Enum.reverse(rest)), "\n") <> "\n")
      _ -> script([IO.read(:line), line | rest])
    end
  end

  defp run(lines) do
    :ets.new(:names, [:named_table, :public])
    children = [{DynamicSupervisor, name: Oracle.Buckets}, Registrar]
    {:ok, supervisor} = Supervisor.start_link(children, strategy: :one_for_one)
    watcher = start()
    # Everything is known by the number of its birth; `slots` says who has a name of the script at present.
    world = %{
      supervisor: supervisor,
      watcher: watcher,
      actors: [],
      slots: %{},
      monitors: [],
      held: MapSet.new(),
      buckets: [],
      watches: [],
      births: %{}
    }

    {trace, world} =
      Enum.map_reduce(lines, world, fn line, world ->
        line = String.trim(line)
        {result, world} = op(String.split(line, " "), world)
        settle(world, System.monotonic_time(:millisecond) + @deadline_ms)
        {Enum.join(["#{line} => #{result}" | news(world)], " | "), world}
      end)

    Enum.each([watcher | world.actors], &Process.exit(&1, :kill))
    Supervisor.stop(supervisor)
    :ets.delete(:names)
    forget()
    trace
  end

  defp forget do
    receive do
      _ -> forget()
    after
      0 -> :ok
    end
  end

  ## Processes

  defp op(["spawn", slot], world) do
    case actor(slot, world) do
      nil -> begin(slot, world)
      _ -> {"lives", world}
    end
  end

  defp op([verb, slot | rest], world)
       when verb in ~w(call note stop quit crash fall trap exit link unlink monitor hold release) do
    pid = actor(slot, world)
    held = MapSet.member?(world.held, pid)

    cond do
      pid == nil -> {"noproc", world}
      held and verb in ~w(call stop quit crash trap hold) -> {"busy", world}
      verb == "release" and not held -> {"free", world}
      true -> act(verb, pid, rest, world)
    end
  end

  defp op(["demonitor", number, flush], world) do
    with {owner, target, ref} <- nth(Enum.reverse(world.monitors), number),
         true <- Process.alive?(owner) do
      options = if flush == "flush", do: [:flush, :info], else: [:info]
      removed = ask(owner, fn -> Process.demonitor(ref, options) end, world)
      # OTP sets no monitor of oneself, so it finds none; pail sets one that never fires.
      {if(owner == target, do: "oneself", else: removed), world}
    else
      nil -> {"none", world}
      false -> {"noproc", world}
    end
  end

  ## Buckets

  defp op(["create", name], world), do: create(name, world)

  defp op(["registrar", words], world) do
    {failure(fn -> GenServer.call(Registrar, {:crash, words}) end), world}
  end

  defp op(["list"], world) do
    names = for {name, pid} <- :ets.tab2list(:names), do: "#{name}#{label(pid, world)}"
    {Enum.join(Enum.sort(names), " "), world}
  end

  defp op(["watch", target], world) do
    pid = bucket(target, world)
    known = pid || stale(target, world)
    # A name that nobody has: its DOWN comes at once, as that of a pid that is dead.
    ref = ask(world.watcher, fn -> Process.monitor(known || :nobody) end, world)
    world = update_in(world.watches, &(&1 ++ [ref]))
    {"w#{length(world.watches) - 1} #{if pid, do: label(pid, world), else: "none"}", world}
  end

  defp op(["unwatch", number], world) do
    ref = nth(world.watches, number)
    if ref, do: ask(world.watcher, fn -> Process.demonitor(ref, [:flush]) end, world)
    {if(ref, do: "ok", else: "none"), world}
  end

  defp op([verb, target | rest], world) when verb in ~w(lookup put get delete b.stop b.crash) do
    case bucket(target, world) do
      nil -> {"not-found", world}
      pid -> {"#{label(pid, world)} #{with_bucket(verb, pid, rest)}", world}
    end
  end

  ## Clients

  defp op(["client", slot], world) do
    case actor(slot, world) do
      nil -> begin(slot, world)
      _ -> {"lives", world}
    end
  end

  defp op(["c." <> verb, slot | rest], world) do
    case actor(slot, world) do
      nil -> {"noproc", world}
      pid -> client(verb, pid, rest, world)
    end
  end

  defp act("call", pid, [], world), do: {ask(pid, fn -> "pong" end, world), world}

  defp act("note", pid, [number], world) do
    GenServer.cast(pid, {:note, number})
    {"ok", world}
  end

  defp act("stop", pid, [reason], world) do
    GenServer.stop(pid, term(reason))
    {"ok", world}
  end

  defp act("quit", pid, [reason], world), do: {GenServer.call(pid, {:quit, term(reason)}), world}
  defp act("crash", pid, [words], world), do: {failure(fn -> GenServer.call(pid, {:crash, words}) end), world}

  defp act("fall", pid, [words], world) do
    GenServer.cast(pid, {:fall, words})
    {"ok", world}
  end

  defp act("trap", pid, [on], world) do
    ask(pid, fn -> Process.flag(:trap_exit, on == "on") end, world)
    {"ok", world}
  end

  defp act("exit", pid, [to, reason], world) do
    target = latest(to, world)
    reason = if reason == "killed", do: :kill, else: term(reason)

    if MapSet.member?(world.held, target) do
      {"busy", world}
    else
      # Whoever asks whether it lives does so after its own signal has arrived.
      ask(pid, fn -> Process.exit(target, reason) && Process.alive?(target) end, world)
      {"ok", world}
    end
  end

  defp act("link", pid, [to], world) do
    target = latest(to, world)

    link = fn ->
      try do
        Process.link(target)
      rescue
        # To one that does not trap exits link/1 may say that nobody is there by an error in place of the signal.
        ErlangError -> exit(:noproc)
      end
    end

    ask(pid, link, world)
    {"ok", world}
  end

  defp act("unlink", pid, [from], world) do
    target = latest(from, world)

    ask(
      pid,
      fn ->
        Process.unlink(target)
        # The exit signal of a link may have become a message before: unlink/1 leaves it, and its manual shows how to
        # remove it. pail does so by itself.
        flush_exits(target)
      end,
      world
    )

    {"ok", world}
  end

  defp act("monitor", pid, [to], world) do
    target = latest(to, world)
    ref = ask(pid, fn -> Process.monitor(target) end, world)
    world = update_in(world.monitors, &(&1 ++ [{pid, target, ref}]))
    {"m#{length(world.monitors) - 1}", world}
  end

  defp act("hold", pid, [], world) do
    if ask(pid, fn -> Process.info(self(), :trap_exit) end, world) == {:trap_exit, true} do
      GenServer.cast(pid, :hold)
      {"ok", update_in(world.held, &MapSet.put(&1, pid))}
    else
      {"no", world}
    end
  end

  defp act("release", pid, [], world) do
    send(pid, :release)
    {"ok", update_in(world.held, &MapSet.delete(&1, pid))}
  end

  defp flush_exits(from) do
    receive do
      {:EXIT, ^from, _} -> flush_exits(from)
    after
      0 -> :ok
    end
  end

  defp create(name, world) do
    {pid, created} = GenServer.call(Registrar, {:create, name})
    world = if created, do: note(update_in(world.buckets, &(&1 ++ [{name, pid}])), pid), else: world
    {"#{label(pid, world)} #{created}", world}
  end

  defp with_bucket("lookup", pid, []), do: Agent.get(pid, fn {version, _} -> version end)

  defp with_bucket("put", pid, [key, value]) do
    Agent.get_and_update(pid, fn {version, entries} ->
      {version + 1, {version + 1, Map.put(entries, key, {value, version + 1})}}
    end)
  end

  defp with_bucket("get", pid, [key]), do: entry(Agent.get(pid, fn {_, entries} -> entries[key] end))

  defp with_bucket("delete", pid, [key]) do
    Agent.get_and_update(pid, fn
      {version, %{^key => old} = entries} -> {entry(old), {version + 1, Map.delete(entries, key)}}
      state -> {entry(nil), state}
    end)
  end

  defp with_bucket("b.crash", pid, [words]), do: failure(fn -> Agent.get(pid, fn _ -> raise words end) end)

  defp with_bucket("b.stop", pid, ["killed"]) do
    ref = Process.monitor(pid)
    Process.exit(pid, :kill)

    receive do
      {:DOWN, ^ref, _, _, _} -> "ok"
    end
  end

  defp with_bucket("b.stop", pid, [reason]) do
    Agent.stop(pid, term(reason))
    "ok"
  end

  defp entry(nil), do: "none"
  defp entry({value, version}), do: "#{value}@#{version}"

  defp client("trap", pid, rest, world), do: act("trap", pid, rest, world)

  defp client("link", pid, [target, mode], world) do
    case {bucket(target, world), mode} do
      {nil, "create"} when binary_part(target, 0, 1) != "@" -> tie(pid, create(target, world))
      {nil, "new"} when binary_part(target, 0, 1) != "@" -> tie(pid, create(target, world))
      {nil, "new"} -> new_by_handle(target, world)
      {nil, _} -> {"not-found", world}
      {bucket, "new"} -> {"exists #{label(bucket, world)}", world}
      {bucket, _} -> tie(pid, {"#{label(bucket, world)}", world})
    end
  end

  defp client("unlink", pid, [name], world) do
    buckets = for {^name, bucket} <- world.buckets, do: bucket
    ask(pid, fn -> Enum.each(buckets, &Process.unlink/1) end, world)
    {"ok", world}
  end

  defp client("links", pid, [], world) do
    {:links, links} = Process.info(pid, :links)
    {links |> Enum.map(&label(&1, world)) |> Enum.sort() |> Enum.join(" "), world}
  end

  defp client("bye", pid, [], world), do: act("stop", pid, ["normal"], world)
  defp client("lose", pid, [], world), do: act("stop", pid, ["noconnection:gone"], world)

  # The name of a handle whose bucket is dead may be another's.
  defp new_by_handle(target, world) do
    with {name, _} <- handle(target, world),
         pid when pid != nil <- Registrar.lookup(name) do
      {"exists #{label(pid, world)}", world}
    else
      _ -> {"not-found", world}
    end
  end

  defp tie(client, {result, world}) do
    [label | _] = String.split(result, " ")
    {_, bucket} = Enum.at(world.buckets, String.to_integer(String.slice(label, 1..-1)))
    ask(client, fn -> Process.link(bucket) end, world)
    {"linked #{label}", world}
  end

  ## Who is who

  defp begin(slot, world) do
    pid = start()
    world = note(%{world | actors: world.actors ++ [pid], slots: Map.put(world.slots, slot, pid)}, pid)
    {label(pid, world), world}
  end

  # A GenServer ends with its parent, even if it traps exits, and one that is started without a link is its own parent.
  defp start do
    {:ok, pid} = GenServer.start_link(Actor, nil)
    Process.unlink(pid)
    pid
  end

  # Whose end is to be told of.
  defp note(world, pid), do: put_in(world.births[Process.monitor(pid)], pid)

  defp actor(slot, world) do
    pid = world.slots[slot]
    if pid && Process.alive?(pid), do: pid
  end

  # Also one that is dead.
  defp latest(slot, world), do: world.slots[slot]

  defp bucket("@" <> _ = target, world) do
    case handle(target, world) do
      {_, pid} -> if Process.alive?(pid), do: pid
      nil -> nil
    end
  end

  defp bucket(name, _), do: Registrar.lookup(name)

  defp handle("@" <> number, world), do: nth(world.buckets, number)

  defp stale("@" <> _ = target, world) do
    with {_, pid} <- handle(target, world), do: pid
  end

  defp stale(_, _), do: nil

  defp nth([], _), do: nil
  defp nth(list, number), do: Enum.at(list, rem(String.to_integer(number), length(list)))

  defp label(pid, world) do
    case Enum.find_index(world.buckets, fn {_, bucket} -> bucket == pid end) do
      nil -> "n#{Enum.find_index(world.actors, &(&1 == pid))}"
      index -> "##{index}"
    end
  end

  ## What happened

  # Has `pid` do `work`, also in the middle of a handler.
  defp ask(pid, work, world) do
    if MapSet.member?(world.held, pid) do
      ref = make_ref()
      send(pid, {:do, self(), ref, work})

      receive do
        {^ref, result} -> result
      end
    else
      try do
        GenServer.call(pid, {:do, work})
      catch
        :exit, _ -> "died"
      end
    end
  end

  defp failure(work) do
    work.()
    "no failure"
  catch
    :exit, {reason, _} -> reason(reason)
  end

  # Until nobody alive has a tie to the dead (each death has reached all whom it concerns) and nobody has a message left;
  # twice, since who was asked first may have been sent something meanwhile.
  defp settle(world, deadline) do
    cond do
      quiet?(world) and quiet?(world) ->
        :ok

      System.monotonic_time(:millisecond) > deadline ->
        IO.puts(:stderr, "oracle.exs: it does not settle")
        System.halt(1)

      true ->
        :erlang.yield()
        settle(world, deadline)
    end
  end

  defp quiet?(world) do
    buckets = for {_, pid} <- world.buckets, do: pid
    own = [world.supervisor, world.watcher, Process.whereis(Oracle.Buckets), Process.whereis(Registrar)]
    nil not in own and Enum.all?(own ++ world.actors ++ buckets, &idle?(&1, world)) and untied?(self())
  end

  defp idle?(pid, world) do
    held = MapSet.member?(world.held, pid)

    answered =
      try do
        if held, do: ask(pid, fn -> :ok end, world), else: :sys.get_state(pid)
        true
      catch
        :exit, _ -> false
      end

    not Process.alive?(pid) or (answered and (held or read?(pid)) and untied?(pid))
  end

  defp read?(pid), do: Process.info(pid, :message_queue_len) in [nil, {:message_queue_len, 0}]

  defp untied?(pid) do
    case Process.info(pid, [:links, :monitors]) do
      nil -> true
      [links: links, monitors: monitors] ->
        monitored = for {:process, other} <- monitors, is_pid(other), do: other
        Enum.all?(links ++ monitored, &(not is_pid(&1) or Process.alive?(&1)))
    end
  end

  # Who died, and what the living were told. The dead tell nothing: of a link's signal and a monitor's message from one
  # death either may be first, so one who dies of it may have been told before or not.
  defp news(world) do
    living = Enum.filter(world.actors, &(Process.alive?(&1) and not MapSet.member?(world.held, &1)))
    mail = Enum.flat_map(living, &mail(label(&1, world), GenServer.call(&1, :mail), world))

    watched =
      for {:DOWN, ref, _, _, reason} <- GenServer.call(world.watcher, :mail),
          do: "w#{Enum.find_index(world.watches, &(&1 == ref))} DOWN #{reason(reason)}"

    Enum.sort(deaths(world)) ++ Enum.sort(mail) ++ Enum.sort(watched)
  end

  defp deaths(world) do
    receive do
      {:DOWN, ref, :process, pid, reason} when is_map_key(world.births, ref) ->
        ["#{label(pid, world)} dead #{reason(reason)}" | deaths(world)]
    after
      0 -> []
    end
  end

  defp mail(owner, mail, world) do
    notes = for {:note, number} <- mail, do: number

    told =
      for message <- mail, not match?({:note, _}, message) do
        case message do
          {:DOWN, ref, :process, _, reason} ->
            "#{owner} DOWN m#{Enum.find_index(world.monitors, &(elem(&1, 2) == ref))} #{reason(reason)}"

          {:EXIT, from, reason} ->
            "#{owner} EXIT #{label(from, world)} #{reason(reason)}"
        end
      end

    if notes == [], do: told, else: ["#{owner} notes #{Enum.join(notes, ",")}" | told]
  end

  ## Reasons: `name` or `name:words` in a script

  defp term(text) do
    case String.split(text, ":") do
      [name] -> String.to_atom(name)
      [name, words] -> {String.to_atom(name), words}
    end
  end

  defp reason(name) when is_atom(name), do: Atom.to_string(name)
  defp reason({%RuntimeError{message: words}, _}), do: "crashed:#{words}"
  defp reason({name, words}) when is_binary(words), do: "#{name}:#{words}"
end

Oracle.main()
