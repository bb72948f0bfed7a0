# What Elixir does in its own machine, without a socket: one figure a run.
#
#     elixir benches/beam.exs create        Agents a second, by a DynamicSupervisor, each with a name in a Registry
#     elixir benches/beam.exs lookup-get    Registry.lookup and Agent.get a second, by one caller, of 1,000 names
#     elixir benches/beam.exs memory        bytes of such an Agent, empty, with a name of 16 bytes
#     elixir benches/beam.exs down          kills and DOWNs a second, of 200,000 Agents that one process monitors

defmodule Beam do
  @agents 200_000
  @named 1_000
  @lookups 1_000_000

  def figure("create"), do: per_second(@agents, fn -> create(@agents) end)

  def figure("lookup-get") do
    create(@named)
    names = List.to_tuple(for number <- 1..@named, do: name(number))

    per_second(@lookups, fn ->
      Enum.each(1..@lookups, fn number ->
        [{pid, _}] = Registry.lookup(Names, elem(names, rem(number, @named)))
        Agent.get(pid, & &1)
      end)
    end)
  end

  def figure("memory") do
    before = settled_memory()
    create(@agents)
    (settled_memory() - before) / @agents
  end

  def figure("down") do
    pids = for _ <- 1..@agents, do: elem(Agent.start(fn -> %{} end), 1)
    refs = Map.new(pids, &{Process.monitor(&1), true})

    per_second(@agents, fn ->
      Enum.each(pids, &Process.exit(&1, :kill))

      Enum.each(pids, fn _ ->
        receive do
          {:DOWN, ref, :process, _, :killed} when is_map_key(refs, ref) -> :ok
        after
          60_000 -> raise "no DOWN"
        end
      end)
    end)
  end

  def start do
    {:ok, _} = Registry.start_link(keys: :unique, name: Names)
    {:ok, _} = DynamicSupervisor.start_link(strategy: :one_for_one, name: Agents)
  end

  defp create(count) do
    for number <- 1..count do
      agent = %{
        id: :agent,
        restart: :temporary,
        start: {Agent, :start_link, [fn -> %{} end, [name: {:via, Registry, {Names, name(number)}}]]}
      }

      {:ok, _} = DynamicSupervisor.start_child(Agents, agent)
    end
  end

  defp name(number), do: "bucket-" <> String.pad_leading(Integer.to_string(number), 9, "0")

  defp settled_memory do
    Enum.each(Process.list(), &:erlang.garbage_collect/1)
    :erlang.memory(:total)
  end

  defp per_second(count, work) do
    {microseconds, _} = :timer.tc(work)
    count * 1_000_000 / microseconds
  end
end

Beam.start()
[figure] = System.argv()
IO.puts(Beam.figure(figure))
